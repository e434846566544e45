"""The published model and its training in two stages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccstae.errors import InputError
from ccstae.machine.device import batch
from ccstae.methods.ccstae_2023 import losses, network, warp
from ccstae.methods.ccstae_2023.masks import Masks
from ccstae.methods.ccstae_2023.settings import Ccstae2023Settings

_INFERENCE = 64  # patterns at a time


def side(settings: Ccstae2023Settings) -> int:
    """Side of the dictionary's pictures in detector pixels: 5 times the factors of the
    upsampling."""
    return network.SIDE_OF_ENTRY * settings.binning * math.prod(settings.pools)


@dataclass(frozen=True)
class Patterns:
    """The scan as the network and the losses see it, in units of the spots' mean brightness."""

    counts: NDArray[np.unsignedinteger]  # (N, H, W)
    masks: Masks
    settings: Ccstae2023Settings

    @property
    def input_side(self) -> int:
        """Side of the encoder's input: the largest that poolings and binning divide. InputError
        where they take all.
        """
        step = self.settings.binning * math.prod(self.settings.pools)
        whole = min(self.counts.shape[1:]) // step * step
        if whole == 0:
            shape = " x ".join(map(str, self.counts.shape[1:]))
            raise InputError(
                f"method ccstae-2023: pools and binning divide by {step}; expected at most the "
                f"pattern's side ({shape} pixels)"
            )
        return whole // self.settings.binning

    def images(self, rows: Tensor) -> Tensor:
        """(B, H, W)."""
        chosen = torch.from_numpy(self.counts[rows.cpu().numpy()].astype(np.float32))
        return chosen.to(self.masks.centre.device) / self.masks.unit

    def inputs(self, images: Tensor) -> Tensor:
        """(B, 1, H', H') of images (B, H, W): cropped about the middle, binned, and cut at
        `brightest`.
        """
        extent = self.input_side * self.settings.binning
        top, left = ((n - extent) // 2 for n in images.shape[1:])
        crop = images[:, None, top : top + extent, left : left + extent]
        return nn.functional.avg_pool2d(crop, self.settings.binning).clamp_max(
            self.settings.brightest
        )


class Model(nn.Module):
    """Encoder, sparse code, localisation head and dictionary."""

    def __init__(self, settings: Ccstae2023Settings, input_side: int, half_side: float):
        super().__init__()
        s = settings
        self.encoder = network.Encoder(input_side, s.pools, s.channels, s.vector)
        self.code = network.Code(s.vector, s.entries)
        self.head = network.Head(s.vector, s.entries)
        factors = [*reversed(s.pools[1:]), s.pools[0] * s.binning]
        self.dictionary = network.Dictionary(s.entries, tuple(factors), s.channels)
        self.limits = network.Limits(
            s.scale_limit, s.shear_limit, s.rotation_limit_rad, s.translation_limit * half_side
        )

    def forward(self, inputs: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes (B, E), stretches (B, 2, 2), angles (B,) and translations (B, 2) in pixels of
        inputs (B, 1, H', H').
        """
        vector = self.encoder(inputs)
        code = self.code(vector)
        raw = self.head(vector, code)
        stretch = network.stretch(raw, self.limits)
        return (
            code,
            stretch,
            network.angle(raw, self.limits, base),
            self.limits.translation_px * torch.tanh(raw[:, 4:]),
        )

    def pictures(self) -> Tensor:
        """The dictionary, (E, D, D)."""
        return self.dictionary(
            torch.eye(self.dictionary.start.in_features, device=self.dictionary.start.weight.device)
        )


@dataclass(frozen=True)
class Trained:
    """What the trained model says of N patterns, and its dictionary."""

    A: Tensor  # (N, 2, 2), dictionary to pattern
    origin: Tensor  # (N, 2)
    entry: Tensor  # (N,)
    pictures: Tensor  # (E, D, D)


def train(
    counts: NDArray[np.unsignedinteger], masks: Masks, symmetry: int, settings: Ccstae2023Settings
) -> Trained:
    """Train on the patterns (N, H, W) and say what the model makes of them."""
    patterns = Patterns(counts, masks, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Model(settings, patterns.input_side, min(counts.shape[1:]) / 2)
    period = 2 * math.pi / symmetry
    # The ReLU of the first stage's angle is one-sided: it starts a period up, which is the same
    # orientation.
    mean = torch.exp(1j * symmetry * masks.angle[masks.found]).mean().angle() / symmetry
    with torch.no_grad():
        model.head.linear.bias[3] = mean + period
    model.to(masks.centre.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.Generator().manual_seed(settings.seed)
    _stage(model, patterns, None, symmetry, order)
    angles = torch.cat([angle for *_, angle, _ in _encoded(model, patterns, None)])
    base = torch.remainder(angles - mean + period / 2, period) + mean - period / 2
    with torch.no_grad():
        model.head.linear.weight[3], model.head.linear.bias[3] = 0.0, 0.0
    _stage(model, patterns, base, symmetry, order)
    code, stretch, angle, shift = (
        torch.cat(parts) for parts in zip(*_encoded(model, patterns, base), strict=True)
    )
    with torch.no_grad():
        pictures = model.pictures()
    return Trained(
        stretch @ network.rotation(angle), masks.centre + shift, code.argmax(-1), pictures
    )


def _stage(
    model: Model, patterns: Patterns, base: Tensor | None, symmetry: int, order: torch.Generator
) -> None:
    """One stage: the first without a base angle, the second with the first's."""
    s, masks = patterns.settings, patterns.masks
    stage = 0 if base is None else 1
    N, size = len(patterns.counts), batch(s.batch[stage])
    steps = s.epochs[stage] * -(-N // size)
    optimiser = torch.optim.Adam(model.parameters(), lr=s.learning_rate[stage])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(steps, 1))
    reach = float(masks.spots.norm(dim=1).mean())
    inner, outer = (
        reach * (1 + e * s.scale_limit) + e * s.spot_radii * masks.radius for e in (-1, 1)
    )
    ring = warp.ring(inner, outer, masks.spots)
    coarse, fine = (
        warp.disk(s.spot_radii * masks.radius, step, masks.spots) for step in (1.0, 1 / s.upsample)
    )
    for _ in range(s.epochs[stage]):
        for rows in torch.randperm(N, generator=order).split(size):
            rows = rows.to(masks.centre.device)
            images = patterns.images(rows)
            code, stretch, angle, shift = model(
                patterns.inputs(images), None if base is None else base[rows]
            )
            warped = losses.Warped(
                stretch @ network.rotation(angle),
                masks.centre[rows] + shift,
                code,
                model.pictures(),
            )
            found = masks.found[rows].to(angle.dtype)
            loss = _regularisers(stretch, found, warped.pictures, s)
            if base is None:
                # Jittered, lest the variance of the bicubic interpolant, which depends on the place
                # within a pixel, steer the warp.
                jitter = torch.rand(2, generator=order).to(ring) - 0.5
                loss = loss + losses.ring_cycles(images, warped, ring + jitter)
                loss = loss + s.orientation_weight * losses.orientation(
                    angle, masks.angle[rows], found, symmetry
                )
            else:
                loss = loss + losses.spot_cycles(
                    images, warped, masks.spots, coarse, fine, s.mass_threshold
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), s.gradient_clip)
            optimiser.step()
            schedule.step()


def _regularisers(
    stretch: Tensor, found: Tensor, pictures: Tensor, s: Ccstae2023Settings
) -> Tensor:
    """What both stages add to the cycles: large scales and shears, a common stretch, and pictures
    that are not sparse.
    """
    scales = torch.diagonal(stretch, dim1=1, dim2=2) - 1
    return (
        s.scale_weight * losses.excess(scales, s.scale_free)
        + s.shear_weight * losses.excess(stretch[:, 0, 1], s.shear_free)
        + s.gauge_weight * losses.gauge(stretch, found)
        + s.sparsity * pictures.abs().sum()
    )


@torch.no_grad()
def _encoded(model: Model, patterns: Patterns, base: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
    """The model's answers, batch by batch in order."""
    for rows in torch.arange(len(patterns.counts)).split(batch(_INFERENCE)):
        yield model(
            patterns.inputs(patterns.images(rows)),
            None if base is None else base[rows.to(base.device)],
        )
