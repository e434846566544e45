"""What the dictionary learns from the counts: background, intensities and entries, and the shape of
the disks.

Some patterns of the scan, the teachers, are encoded and refined with a first dictionary, and so
brought back to the reference lattice: there they must agree with the dictionary, which is changed
until they do.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ccstae import geometry
from ccstae.methods.ccstae import background, entries, spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary, from_probe, improve, patch_pixels
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import State, covariance_of_M
from ccstae.methods.ccstae.solve import FREE, solve
from ccstae.methods.shared import sites

_SHAPE_ROUNDS = 2
_PROBE_COUNTS = 1e5
_LEAST_SHARE = 1e-3  # of the mean disk's intensity: no disk is fainter


def start(
    teachers: Tensor,
    first: Encoded,
    nominal: Tensor,
    probe: Tensor,
    centre: tuple[float, float],
    radius_px: float,
    affine: bool = False,
) -> Dictionary:
    """A first dictionary: the vacuum probe at the nominal lattice, mean intensities, radial
    background.

    From patterns (n, Qy, Qx) with lattices as in `first`, the nominal lattice (2, 2) in pixels,
    columns, and the vacuum probe (Qy, Qx), whose nominal place is `centre` (x, y).
    """
    shape = (teachers.shape[1], teachers.shape[2])
    # Nodes that may come onto the detector at its corners, whatever the strain.
    _, farthest = sites.border_distances_px(centre, shape)
    hk = geometry.lattice_nodes(nominal.cpu().numpy().astype(float), 1.5 * min(farthest))
    g = torch.from_numpy(hk).to(nominal) @ nominal.T
    # A disk counts when its centre lies on the detector for most of the scan.
    position = transformer.positions(first.M, first.centre, g)
    on = ((position > 0) & (position < position.new_tensor([shape[1] - 1, shape[0] - 1]))).all(
        -1
    ).float().mean(0) > 0.5
    g, position = g[on], position[:, on]
    profile = from_probe(probe, centre, radius_px)
    diffuse = background.radial(teachers, position, radius_px, centre, probe)
    pixels = patch_pixels(radius_px)
    patch = transformer.patches(position, transformer.square(pixels, teachers.device), shape)
    intensity = (patch.cut(teachers) - patch.cut(diffuse)).sum(-1) / patch.inside.mean(
        -1
    ).clamp_min(0.2)
    mean = intensity.mean(0)
    mean = mean.clamp_min(_LEAST_SHARE * float(mean[1:].mean()))
    floor = 1e-13 * float(teachers.sum((1, 2)).mean())
    anywhere = torch.tensor([[0.0, 1.0]], dtype=torch.float64, device=mean.device)
    return Dictionary(
        g,
        profile,
        profile,
        mean[None],
        diffuse,
        centre,
        anywhere,
        torch.full_like(mean, FREE),
        pixels,
        floor,
        affine=affine,
    )


def teach(
    dictionary: Dictionary,
    data: Tensor,
    first: Encoded,
    probe: Tensor,
    centre: tuple[float, float],
    radius_px: float,
    batch: int,
    without: tuple[str, ...] = (),
) -> Dictionary:
    """The dictionary after the teachers (n, Qy, Qx), encoded as in `first`, are refined with it, so
    many at a time, and brought back.

    `without` names what is not to be learned: more than one of the "entries", the "background"
    under the direct beam, the disks' "shape".
    """
    solved = [
        solve(dictionary, data[part], first[part], rounds=1)[:2]
        for part in torch.arange(len(data)).split(batch)
    ]
    state = State.join([s for s, _ in solved])
    variance = torch.cat([1 / e.own for _, e in solved]).float()
    covariance = covariance_of_M(torch.cat([e.normal for _, e in solved]))
    most = 1 if "entries" in without else entries.LARGEST_ENTRIES
    dictionary, state = entries.code(dictionary, state, variance, covariance, most)
    position = transformer.positions(state.M, state.centre, dictionary.g)
    diffuse = background.radial(
        data, position, radius_px, centre, probe, cusp="background" not in without
    )
    dictionary = replace(dictionary, background=diffuse)
    if "shape" not in without:
        dictionary = shape(dictionary, data, state, _SHAPE_ROUNDS)
    return replace(dictionary, error=model_error(dictionary, data, state))


def shape(dictionary: Dictionary, counts: Tensor, state: State, rounds: int) -> Dictionary:
    """Learn the disks' shape from aligned patterns. The direct beam's, which the vacuum probe
    shows, speaks as well, with as much as `_PROBE_COUNTS`: a few counts a disk lie where they were
    put by the fit that aligned them, and would teach a shape too sharp.
    """
    for _ in range(rounds):
        position = transformer.positions(state.M, state.centre, dictionary.g)
        window = transformer.square(dictionary.pixels, counts.device)
        patch = transformer.patches(position, window, (counts.shape[-2], counts.shape[-1]))
        seen = patch.inside.amin(-1) > 0  # a disk cut by the border would teach its border
        seen[:, 0] = False
        shift, intensity = patch.shift(position)[seen], state.intensity[seen]
        unit = spline.render(dictionary.disk, shift, dictionary.pixels)
        diffuse_counts = (state.level[:, None, None] * patch.cut(dictionary.background))[
            seen
        ].reshape(unit.shape)
        model = intensity[:, None, None] * unit + diffuse_counts + dictionary.floor
        dictionary = improve(
            dictionary,
            patch.cut(counts)[seen].reshape(unit.shape),
            model,
            intensity,
            shift,
            _PROBE_COUNTS,
        )
    return dictionary


def model_error(dictionary: Dictionary, counts: Tensor, state: State) -> float:
    """What the aligned patterns leave beyond Poisson's variance: root mean square, over the
    brightest pixel of the disk.

    Zero where the counts' own noise hides it, below three standard errors. Only pixels that expect
    a count are asked: in emptier ones single counts beside a disk that is ill located would decide.
    At high dose it is strain that changes within the probe, neighbours' tails and whatever else the
    dictionary has no word for; a pixel then weighs by both variances.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)[:, 1:]
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    near, expansion = dictionary.table(patch.shift(position).reshape(-1, 2), 1)
    unit = (expansion[:, :1] @ near).reshape(patch.index.shape)
    disk = state.intensity[:, 1:, None] * unit
    model = disk + state.level[:, None, None] * patch.cut(dictionary.background) + dictionary.floor
    asked = patch.inside * (model > 1)
    beyond = float((((patch.cut(counts) - model) ** 2 - model) * asked).sum(dtype=torch.float64))
    error = (
        float(((model + 2 * model**2) * asked).sum(dtype=torch.float64)) ** 0.5
    )  # Poisson: (d - m)^2 has the variance m + 2 m^2
    brightest = disk.amax(2, keepdim=True) * asked
    # Summed before they are divided, so that faint disks do not decide.
    return (
        math.sqrt(beyond / float((brightest**2).sum(dtype=torch.float64)))
        if beyond > 3 * error
        else 0.0
    )
