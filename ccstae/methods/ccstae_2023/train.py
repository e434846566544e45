"""The published model and its training in two stages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ccstae.errors import InputError
from ccstae.io import beside
from ccstae.io.counts import Counts
from ccstae.machine.device import batch, ceil_div
from ccstae.methods.ccstae_2023 import losses, network, warp
from ccstae.methods.ccstae_2023.masks import Masks
from ccstae.methods.ccstae_2023.settings import Ccstae2023Settings
from ccstae.methods.shared import adam

_INFERENCE_BATCH = 64


def picture_side(settings: Ccstae2023Settings) -> int:
    """Side of the dictionary's pictures in detector pixels: that of the decoder's first map, times
    the factors of its upsampling.
    """
    return network.SIDE_OF_ENTRY * settings.binning * math.prod(settings.pools)


@dataclass(frozen=True)
class TrainingPatterns:
    """The scan as the network and the losses take it, in units of the spots' mean brightness."""

    counts: Counts
    masks: Masks
    settings: Ccstae2023Settings

    @property
    def input_side(self) -> int:
        """Side of the encoder's input: the largest that poolings and binning divide.

        Raises:
            InputError: where they leave nothing.
        """
        step = self.settings.binning * math.prod(self.settings.pools)
        whole = min(self.counts.detector) // step * step
        if whole == 0:
            shape = " x ".join(map(str, self.counts.detector))
            raise InputError(
                f"method ccstae-2023: pools and binning divide by {step}; expected at most the "
                f"pattern's side ({shape} pixels)"
            )
        return whole // self.settings.binning

    def images(self, rows: Tensor) -> Tensor:
        """The patterns of these rows, (B, H, W)."""
        patterns = beside.filled(self.counts.patterns[rows.cpu().numpy()], self.counts.good)
        images = torch.from_numpy(patterns.astype(np.float32))
        return images.to(self.masks.centre.device) / self.masks.unit

    def inputs(self, images: Tensor) -> Tensor:
        """The encoder's inputs (B, 1, H', H'): images (B, H, W) cropped about the middle of the
        detector, binned, and limited to `brightest`.
        """
        extent = self.input_side * self.settings.binning
        top, left = (images.shape[1] - extent) // 2, (images.shape[2] - extent) // 2
        crop = images[:, None, top : top + extent, left : left + extent]
        return nn.functional.avg_pool2d(crop, self.settings.binning).clamp_max(
            self.settings.brightest
        )


class PublishedModel(nn.Module):
    """Encoder, sparse code, localisation head and dictionary."""

    def __init__(self, settings: Ccstae2023Settings, input_side: int, half_side: float):
        super().__init__()
        s = settings
        self.encoder = network.PublishedEncoder(input_side, s.pools, s.channels, s.vector)
        self.code = network.SparseCode(s.vector, s.entries)
        self.head = network.LocalisationHead(s.vector, s.entries)
        factors = [*reversed(s.pools[1:]), s.pools[0] * s.binning]
        self.dictionary = network.PublishedDictionary(s.entries, tuple(factors), s.channels)
        self.limits = network.Limits(
            s.scale_limit, s.shear_limit, s.rotation_limit_rad, s.translation_limit * half_side
        )

    def forward(self, inputs: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes and deformations of patterns.

        Args:
            inputs: (B, 1, H', H').
            base: angles (B,) that those of the patterns stay near; None leaves them free.

        Returns:
            Codes (B, E), stretches (B, 2, 2), angles (B,) in radians and translations (B, 2) in
            pixels.
        """
        vector = self.encoder(inputs)
        code = self.code(vector)
        raw = self.head(vector, code)
        stretch = network.stretch(raw, self.limits)
        angle = network.angle(raw, self.limits, base)
        translation = self.limits.translation_px * torch.tanh(raw[:, 4:])
        return code, stretch, angle, translation

    def pictures(self) -> Tensor:
        """The dictionary, (E, D, D)."""
        start = self.dictionary.start
        return self.dictionary(torch.eye(start.in_features, device=start.weight.device))


@dataclass(frozen=True)
class FittedScan:
    """What the trained model says of N patterns, and its dictionary."""

    A: Float[Tensor, "N 2 2"]  # dictionary to pattern
    origin: Float[Tensor, "N 2"]  # the dictionary's centre in the pattern, pixels
    entry: Int64[Tensor, " N"]
    pictures: Float[Tensor, "E D D"]  # in units of the spots' mean brightness


def train_on_scan(counts: Counts, masks: Masks, settings: Ccstae2023Settings) -> FittedScan:
    """Train on a scan in two stages, and encode it.

    Args:
        counts: N patterns (Ry, Rx, H, W), and their calibration.
        masks: what is known of them beforehand.
        settings: network, losses and training.

    Returns:
        What the model makes of the N patterns.

    Raises:
        InputError: where the pools and the binning leave nothing of a pattern.
    """
    patterns = TrainingPatterns(counts, masks, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = PublishedModel(settings, patterns.input_side, min(counts.detector) / 2)
    symmetry = counts.calibration.rotational_symmetry
    period = 2 * math.pi / symmetry
    # The ReLU of the first stage's angle is one-sided, so the angle starts a period up, which is
    # the same orientation.
    angles = masks.angle[masks.has_lattice]
    mean = torch.exp(1j * symmetry * angles).mean().angle() / symmetry
    with torch.no_grad():
        model.head.linear.bias[3] = mean + period
    model.to(masks.centre.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.Generator().manual_seed(settings.seed)
    _train_stage(model, patterns, None, symmetry, order)
    _, _, angles, _ = _encode(model, patterns, None)
    base = torch.remainder(angles - mean + period / 2, period) + mean - period / 2
    with torch.no_grad():
        model.head.linear.weight[3], model.head.linear.bias[3] = 0.0, 0.0
    _train_stage(model, patterns, base, symmetry, order)
    code, stretch, angle, translation = _encode(model, patterns, base)
    with torch.no_grad():
        pictures = model.pictures()
    A, origin = stretch @ network.rotation(angle), masks.centre + translation
    return FittedScan(A, origin, code.argmax(-1), pictures)


def _train_stage(
    model: PublishedModel,
    patterns: TrainingPatterns,
    base: Tensor | None,
    symmetry: int,
    order: torch.Generator,
) -> None:
    """One stage of training: the first without base angles, the second about those of the first."""
    s, masks = patterns.settings, patterns.masks
    stage = 0 if base is None else 1
    N, size = len(patterns.counts.patterns), batch(s.batch[stage])
    steps = s.epochs[stage] * ceil_div(N, size)
    optimiser = adam.Adam(model.parameters())
    spot_radius = s.spot_radii * masks.radius
    ring_radius = float(masks.spots.norm(dim=1).mean())
    inner = ring_radius * (1 - s.scale_limit) - spot_radius
    outer = ring_radius * (1 + s.scale_limit) + spot_radius
    ring = warp.ring(inner, outer, masks.spots)
    coarse = warp.disk(spot_radius, 1.0, masks.spots)
    fine = warp.disk(spot_radius, 1 / s.upsample, masks.spots)
    for _ in range(s.epochs[stage]):
        for rows in torch.randperm(N, generator=order).split(size):
            rows = rows.to(masks.centre.device)
            images = patterns.images(rows)
            code, stretch, angle, translation = model(
                patterns.inputs(images), None if base is None else base[rows]
            )
            A, origin = stretch @ network.rotation(angle), masks.centre[rows] + translation
            warped = losses.Warped(A, origin, code, model.pictures())
            has_lattice = masks.has_lattice[rows].to(angle.dtype)
            loss = _regularisers(stretch, has_lattice, warped.pictures, s)
            if base is None:
                # The variance of the bicubic interpolant depends on the place within a pixel. The
                # ring is jittered, so that this does not steer the warp.
                jitter = torch.rand(2, generator=order).to(ring) - 0.5
                loss = loss + losses.ring_cycles(images, warped, ring + jitter)
                loss = loss + s.orientation_weight * losses.orientation(
                    angle, masks.angle[rows], has_lattice, symmetry
                )
            else:
                loss = loss + losses.spot_cycles(
                    images, warped, masks.spots, coarse, fine, s.mass_threshold
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), s.gradient_clip)
            optimiser.step(s.learning_rate[stage] * (1 - optimiser.steps / max(steps, 1)))


def _regularisers(
    stretch: Tensor, has_lattice: Tensor, pictures: Tensor, s: Ccstae2023Settings
) -> Tensor:
    """What both stages add to the cycles: penalties on large scales and shears, on a common
    stretch, and on pictures that are not sparse.
    """
    scales = torch.diagonal(stretch, dim1=1, dim2=2) - 1
    return (
        s.scale_weight * losses.mean_excess(scales, s.scale_free)
        + s.shear_weight * losses.mean_excess(stretch[:, 0, 1], s.shear_free)
        + s.gauge_weight * losses.gauge(stretch, has_lattice)
        + s.sparsity * pictures.abs().sum()
    )


@torch.no_grad()
def _encode(
    model: PublishedModel, patterns: TrainingPatterns, base: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes (N, E), stretches (N, 2, 2), angles (N,) and translations (N, 2) of all patterns."""
    batches = []
    for rows in torch.arange(len(patterns.counts.patterns)).split(batch(_INFERENCE_BATCH)):
        inputs = patterns.inputs(patterns.images(rows))
        batches.append(model(inputs, None if base is None else base[rows.to(base.device)]))
    code, stretch, angle, translation = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    return code, stretch, angle, translation
