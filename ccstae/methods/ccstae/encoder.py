"""The encoder: from counts to a first deformation, through the scores of each disk.

What counts say of the place of a disk is its log-likelihood ratio, disk against background, as a
function of the place: S_k(d) = sum_q counts(q) log(1 + A_k T(q - d) / (b beta_k)). This is a
sufficient statistic, so the encoder sees it and not raw pixels. A small network, the same for every
disk, turns the map of S_k into a displacement and its precision. The answer is the lattice that
fits all displacements best, by weighted least squares, which is differentiable. The network
therefore knows no orientation, and what it learns holds for every lattice.

It is trained in parameter space: deformations are drawn, rendered from the dictionary and counted,
and the encoder must return them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccstae.machine.device import spread_over
from ccstae.methods.ccstae import diffuse_background, spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import OfPatterns
from ccstae.methods.shared import adam

REACH = 4
"""Displacements on the map, in pixels either way."""
_PRIOR_M = 0.03  # standard deviation of the deformation left after the rough lattice
_PRIOR_CENTRE_PX = 0.5
MAX_BEAM_DISAGREEMENT_PX = 1.0  # twice the deviation of what is left after the rough lattice
_STEPS = 100
_RATE = 6e-3  # the highest learning rate
_BATCH = 8
_MAX_STARTS = 128  # lattices to start from, out of more
# A drawn pattern is also shown mirrored, which costs far less than to draw another.
# Axes of a map that are turned round, and the signs of x and y that go with it.
_MIRRORS = (((), (1, 1)), ((-1,), (-1, 1)), ((-2,), (1, -1)), ((-1, -2), (-1, -1)))


class Encoder(nn.Module):
    """Maps of scores (n, K, (2 REACH + 1)^2) -> displacements (n, K, 2) in pixels and precisions
    (n, K, 2, 2).
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear((2 * REACH + 1) ** 2, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 5),
        )

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        # Only differences of scores matter, and what lies far below the best place is all the same.
        x = (maps - maps.amax(-1, keepdim=True)).clamp_min(-30.0) / 10 + 1
        out = self.net(x)
        displacement = REACH * torch.tanh(out[..., :2])
        # Cholesky factor of the precision, which is therefore always positive definite.
        a, b = nn.functional.softplus(out[..., 2] + 0.5), nn.functional.softplus(out[..., 3] + 0.5)
        c = out[..., 4]
        precision = torch.stack(
            [torch.stack([a * a, a * c], -1), torch.stack([a * c, c * c + b * b], -1)], -2
        )
        return displacement, precision


Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""What `Encoder` computes, with its own weights or others."""


@dataclass(frozen=True)
class Encoded(OfPatterns):
    """First answers for n patterns."""

    M: Float[Tensor, "n 2 2"]  # F^-T
    centre: Float[Tensor, "n 2"]  # direct beam, pixels


def fit_lattice(displacement: Tensor, precision: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The lattice that fits displacements d_k = dc + dM g_k best, under a weak prior towards none.

    Args:
        displacement: of the disks, (n, K, 2) in pixels.
        precision: of these, (n, K, 2, 2).
        g: reference nodes (K, 2) in pixels.

    Returns:
        dM (n, 2, 2) and dc (n, 2).
    """
    design = torch.cat([g, torch.ones_like(g[:, :1])], 1)  # (K, 3)
    normal = torch.einsum("nkab,ki,kj->naibj", precision, design, design).reshape(-1, 6, 6)
    pull = torch.einsum("nkab,nkb,ki->nai", precision, displacement, design).reshape(-1, 6)
    prior = torch.tensor(
        [_PRIOR_M**-2, _PRIOR_M**-2, _PRIOR_CENTRE_PX**-2] * 2, device=g.device, dtype=g.dtype
    )
    z = torch.linalg.solve(normal + torch.diag(prior), pull).reshape(-1, 2, 3)
    return z[..., :2], z[..., 2]


def score_kernels(dictionary: Dictionary) -> Tensor:
    """log(1 + A_k T / (b beta_k)) of each diffracted disk, (K - 1, P, P), for the mean intensity of
    the entries.
    """
    T = spline.render(dictionary.disk, dictionary.g.new_zeros(1, 2), dictionary.pixels)[0]
    A = dictionary.intensity.mean(0)[1:]
    background = dictionary.local_background[1:, None, None] + dictionary.floor
    return torch.log1p(A[:, None, None] * T / background)


def score_maps(windows: Tensor, kernel: Tensor) -> Tensor:
    """S (n, K, (2 REACH + 1)^2) of windows (n, K, (P + 2 REACH)^2)."""
    edge = kernel.shape[-1] + 2 * REACH
    return nn.functional.conv2d(
        windows.unflatten(-1, (edge, edge)), kernel[:, None], groups=len(kernel)
    ).flatten(2)


def encode(
    encoder: Encoder, dictionary: Dictionary, counts: Tensor, rough: Encoded, passes: int = 2
) -> Encoded:
    """Improve rough lattices.

    Args:
        encoder: trained on this dictionary.
        dictionary: what the patterns are made of.
        counts: the patterns (n, Qy, Qx).
        rough: their rough lattices.
        passes: how often the disks are sought, each time where the last answer puts them.

    Returns:
        The encoder's lattices of the n patterns.
    """
    M, centre = rough.M, rough.centre
    kernel = score_kernels(dictionary)
    g = dictionary.g[1:]
    window = transformer.square(dictionary.pixels + 2 * REACH, counts.device)
    with torch.no_grad():
        for _ in range(passes):
            position = transformer.positions(M, centre, g)
            patch = transformer.patches(position, window, (counts.shape[-2], counts.shape[-1]))
            maps = score_maps(patch.cut(counts), kernel)
            dM, dc = correction(encoder, maps, patch.shift(position), g, seen(patch))
            M, centre = M + dM, centre + dc
    # The rough direct beam is placed by far more counts, where the disks agree that it is there.
    agree = (centre - rough.centre).norm(dim=1, keepdim=True) < MAX_BEAM_DISAGREEMENT_PX
    return Encoded(M, torch.where(agree, rough.centre, centre))


def is_of_use(dictionary: Dictionary, without: tuple[str, ...]) -> bool:
    """Whether rough lattices are to be improved by an encoder: it is not left out, and the windows
    of its maps hold no more than it is trained on, one disk each.
    """
    return "encoder" not in without and not dictionary.touching


def seen(patch: transformer.Patches) -> Tensor:
    """Which windows (n, K) show more than half of what is round their disk. The map of another one
    has its best place where the detector ends.
    """
    return patch.inside.mean(-1) > 0.5


def correction(
    encoder: Network, maps: Tensor, offset: Tensor, g: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """Correction (dM, dc) of the rough lattice, from the disks that are `seen` (n, K); `offset`
    (n, K, 2) is its place within the middle pixel of the maps.
    """
    displacement, precision = encoder(maps)
    return fit_lattice(displacement - offset, precision * seen[..., None, None], g)


def loss(
    encoder: Network,
    maps: Tensor,
    offset: Tensor,
    g: Tensor,
    seen: Tensor,
    dM: Tensor,
    dc: Tensor,
) -> Tensor:
    """Mean Huber loss, 1 px wide, of where the answer puts the disks g (K, 2), against the drawn dM
    (n, 2, 2) and dc (n, 2).
    """
    answer_M, answer_c = correction(encoder, maps, offset, g, seen)
    error = transformer.positions(answer_M - dM, answer_c - dc, g)
    return nn.functional.huber_loss(error, torch.zeros_like(error), delta=1.0)


def mirrored(encoder: Network, maps: Tensor) -> tuple[Tensor, Tensor]:
    """What the encoder says of maps (n, K, m^2) and of their mirror images, turned back: one after
    another, for 4 n patterns.
    """
    square = maps.unflatten(-1, (2 * REACH + 1, 2 * REACH + 1))
    images = torch.cat([square.flip(axes) for axes, _ in _MIRRORS]).flatten(-2)
    sign = maps.new_tensor([sign for _, sign in _MIRRORS]).repeat_interleave(len(maps), 0)[:, None]
    displacement, precision = encoder(images)
    return displacement * sign, precision * sign[..., None] * sign[..., None, :]


def train(
    dictionary: Dictionary, M: Tensor, centre: Tensor, shape: tuple[int, int], seed: int
) -> Encoder:
    """Train an encoder on renderings of the dictionary, without patterns.

    Args:
        dictionary: what is rendered.
        M: lattices to start from (n, 2, 2); deformation and noise are drawn on top.
        centre: their direct beams (n, 2) in pixels.
        shape: of the detector, (Qy, Qx).
        seed: of the network and of all draws.

    Returns:
        The trained encoder, on the device of M.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder().to(M.device)
    optimiser = adam.Adam(encoder.parameters())
    kernel = score_kernels(dictionary)
    g = dictionary.g[1:]
    pixels = dictionary.pixels + 2 * REACH
    window = transformer.square(pixels, M.device)
    some = spread_over(len(M), _MAX_STARTS)
    M, centre = M[some], centre[some]
    background = diffuse_background.render(dictionary.background, centre, shape)
    for step in range(_STEPS):
        pick = torch.randint(len(M), (_BATCH,), generator=generator)
        position = transformer.positions(M[pick], centre[pick], g)
        patch = transformer.patches(position, window, shape)
        offset = patch.shift(position)
        # Half the draws are large, as after the rough lattice; half small, as after a first pass.
        size = torch.where(torch.rand(_BATCH, 1, 1, generator=generator) < 0.5, 0.02, 0.005)
        dM = (size * torch.randn(_BATCH, 2, 2, generator=generator)).to(M.device)
        dc = (0.2 * torch.randn(_BATCH, 2, generator=generator)).to(M.device)
        moved = transformer.positions(dM, dc, g)
        with torch.no_grad():
            unit = spline.render(dictionary.disk, (offset + moved).reshape(-1, 2), pixels)
            unit = unit.reshape(_BATCH, len(g), -1)
            entry = torch.randint(len(dictionary.intensity), (_BATCH,), generator=generator)
            intensity = dictionary.intensity[entry][:, 1:, None]
            expected = (intensity * unit + patch.cut(background[pick])) * patch.inside
            counts = torch.poisson(expected.cpu().clamp(0, 1e7), generator=generator).to(M.device)
            maps = score_maps(counts, kernel)
        optimiser.zero_grad()
        times = len(_MIRRORS)
        loss(
            lambda maps: mirrored(encoder, maps),
            maps,
            offset.repeat(times, 1, 1),
            g,
            seen(patch).repeat(times, 1),
            dM.repeat(times, 1, 1),
            dc.repeat(times, 1),
        ).backward()
        optimiser.step(*adam.one_cycle(step, _STEPS, _RATE))
    return encoder.eval()
