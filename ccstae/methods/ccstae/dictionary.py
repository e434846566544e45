"""The dictionary: what patterns look like before they are deformed and counted.

It holds the shape of the disks (sampled finer than the detector), the intensities of the disks of
each entry, and the diffuse background. A sparse code picks one entry for each pattern. The
dictionary starts from the vacuum probe, and all of it is learned from the counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ccstae.methods.ccstae import diffuse_background, spline, transformer
from ccstae.methods.ccstae.probe_profile import normalised
from ccstae.methods.ccstae.transformer import Patterns

RIM_PX, MIN_RIM_PX = 2.75, 1.0  # round a disk, in its patch
SOFT_EDGE_PX = 1.5
MAX_SPARSE_COUNTS = 0.125  # counts a pixel, below which patterns are handled count by count


@dataclass(frozen=True)
class Dictionary:
    """Averaged patterns of the reference lattice."""

    g: Float[Tensor, "K 2"]  # reference nodes in pixels; the first is the direct beam
    direct: Float[Tensor, "S S"]  # profile of the direct beam; its samples sum to OVERSAMPLING^2
    disk: Float[Tensor, "S S"]  # profile of the diffracted disks
    intensity: Float[Tensor, "E K"]  # counts in each disk of each entry
    # diffuse counts per pixel of a mean pattern, at distances from its direct beam of whole
    # `diffuse_background.STEP_PX`
    background: Float[Tensor, " R"]
    centre_px: tuple[float, float]  # where the direct beam of the scan lies, (x, y)
    detector_px: tuple[int, int]  # (Qy, Qx)
    electrons: float  # counts of a mean pattern, the direct beam among them
    area: Float64[Tensor, "E 2"]  # mean and deviation of log det M over the patterns of each entry
    spread: Float[Tensor, " K"]  # relative spread of the intensities about their entry
    pixels: int  # edge of a patch, odd
    floor: float  # counts that any pixel may hold; keeps the model positive
    # root mean square of what the model leaves out, over the brightest pixel of the disk
    error: float = 0.0
    # root mean square of how far disks lie off the lattice along one axis, beyond their counts
    stray_px: float = 0.0
    # True where disks are warped with the lattice, as an image is; else they keep their shape
    affine: bool = False
    touching: bool = False  # whether the window of a disk holds light of the next disks

    def to(self, device: str) -> Dictionary:
        """The dictionary on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def scaled(self, dose: float) -> Dictionary:
        """The dictionary of the same patterns with `dose` times as many electrons."""
        return replace(
            self,
            intensity=dose * self.intensity,
            background=dose * self.background,
            electrons=dose * self.electrons,
            floor=dose * self.floor,
        )

    def dose(self, counts: Tensor) -> Tensor:
        """Counts of patterns (n, Qy, Qx) over those of the mean one, (n,)."""
        return (counts.sum((1, 2)) / self.electrons).clamp_min(1e-6)

    def patterns(
        self,
        counts: Tensor,
        centre: Tensor,
        level: Tensor,
        intensity: Tensor,
        good: Tensor | None,
        stray_precision: Tensor | None = None,
    ) -> Patterns:
        """What is held fixed while the parameters of patterns are sought.

        Args:
            counts: patterns (n, Qy, Qx).
            centre: direct beams (n, 2), about which the diffuse background lies.
            level: background scales (n,) to expect.
            intensity: counts in each disk (n, K) to expect. What the model leaves out of a disk,
                the share `error` of its brightest pixel, goes with the intensity that the disk has
                in the pattern at hand.
            good: True where a pixel tells something, (Qy, Qx); None where all do.
            stray_precision: how firmly each disk is held to the lattice, (n, K); None where disks
                do not stray.
        """
        shape = (counts.shape[1], counts.shape[2])
        background = diffuse_background.render(self.background, centre, shape)
        error_variance = ((self.error * self.peak * intensity) ** 2)[..., None]
        return Patterns(
            counts, background, level, error_variance, self.error == 0, stray_precision, good
        )

    def with_spread(self, spread: float) -> Dictionary:
        """The dictionary whose intensities all have this spread about their entry."""
        other = replace(self, spread=torch.full_like(self.spread, spread))
        vars(other)["table"] = self.table  # the profiles are the same: it need not be made again
        return other

    @cached_property
    def local_background(self) -> Tensor:
        """Diffuse counts per pixel at each reference node, (K,)."""
        return diffuse_background.at_distance(self.background, self.g.norm(dim=1))

    @cached_property
    def peak(self) -> float:
        """Share of a disk in its brightest pixel."""
        return float(spline.render(self.disk, self.disk.new_zeros(1, 2), self.pixels).max())

    @cached_property
    def table(self) -> spline.PhaseTable:
        """The rendered direct beam (profile 0) and diffracted disk (profile 1)."""
        return spline.PhaseTable(torch.stack([self.direct, self.disk]), self.pixels, self.offsets)

    @cached_property
    def offsets(self) -> Tensor:
        """Pixels (p, 2) of a round window that holds a disk wherever it lies in the middle
        pixel.
        """
        square = transformer.square(self.pixels, self.g.device)
        return square[square.float().norm(dim=1) <= self.pixels / 2]

    def images_near(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Unit disks in windows of `offsets` near the shifts (n, K, 2): images (n K, 6, p) and
        expansions (n K, 3, 6), as `spline.PhaseTable` gives them.
        """
        return self.table(shift.reshape(-1, 2), self.profiles(len(shift)))

    def profiles(self, n: int) -> Tensor:
        """Which profile of the table the disks of n patterns have, (n K,)."""
        profile = torch.ones(n, len(self.g), dtype=torch.long, device=self.g.device)
        profile[:, 0] = 0
        return profile.reshape(-1)

    @cached_property
    def sparse(self) -> bool:
        """Whether few pixels of a window hold a count. Going through the counts is then faster than
        going through the pixels.
        """
        pixels = len(self.offsets)
        in_window = (self.intensity.mean(0) + pixels * self.local_background)[1:]
        return float(in_window.mean()) < MAX_SPARSE_COUNTS * pixels

    def pictures(self) -> Tensor:
        """The entries as patterns on the fine grid of the profiles, for people to look at.

        Returns:
            Counts per pixel (E, o Qy, o Qx), with o = `spline.OVERSAMPLING`. The direct beam lies
            at its nominal place.
        """
        o, samples = spline.OVERSAMPLING, self.disk.shape[-1]
        height, width = self.detector_px
        diffuse = diffuse_background.render(
            self.background, self.g.new_tensor([self.centre_px]), self.detector_px
        )
        fine = torch.nn.functional.interpolate(
            diffuse[None], scale_factor=o, mode="bilinear", align_corners=False
        )[0]
        out = fine.repeat(len(self.intensity), 1, 1)
        whole = torch.tensor([round(x) for x in self.centre_px], device=self.g.device)
        fraction = torch.tensor(self.centre_px, dtype=self.g.dtype, device=self.g.device) - whole
        # Pixel p is samples o p to o p + o - 1 of the fine grid; its centre is sample o p + o // 2.
        middle = whole * o + o // 2
        # x and y of each profile's first sample
        at = ((self.g + fraction) * o).round().long() + middle - samples // 2
        for k, (x, y) in enumerate(at.tolist()):
            profile = self.direct if k == 0 else self.disk
            top, bottom = max(0, -y), min(samples, o * height - y)
            left, right = max(0, -x), min(samples, o * width - x)
            if bottom > top and right > left:
                out[:, y + top : y + bottom, x + left : x + right] += (
                    self.intensity[:, k, None, None] * profile[top:bottom, left:right]
                )
        return out


def patch_pixels(radius_px: float, spacing_px: float) -> int:
    """Edge of the patch round a disk: the disk, its soft edge and a rim of background, but nothing
    of the next disk, which is `spacing_px` away, unless the two are `touching`.
    """
    half = math.ceil(radius_px + RIM_PX)
    alone = (spacing_px - radius_px - SOFT_EDGE_PX) / math.sqrt(2)  # to the corner of the patch
    if half > alone:
        half = max(math.floor(alone), math.ceil(radius_px + MIN_RIM_PX))
    return 2 * half + 1


def touching(radius_px: float, spacing_px: float) -> bool:
    """Whether disks lie so near one another that the round window of one holds light of the next,
    however small it is.
    """
    return patch_pixels(radius_px, spacing_px) / 2 > spacing_px - radius_px - SOFT_EDGE_PX


def improve(
    dictionary: Dictionary,
    patches: Tensor,
    models: Tensor,
    intensity: Tensor,
    shift: Tensor,
    prior_counts: float,
) -> Dictionary:
    """One expectation-maximisation update of the profile of the diffracted disks.

    The profile of the direct beam is a Dirichlet prior. Only what is alike on opposite sides is
    learned beyond it: the intensities inside a disk may lean to one side, that of the disk at -g
    then leans to the other, and their mean lean over the disks that a detector happens to show
    would be taken for a displacement of all.

    Args:
        dictionary: the dictionary so far.
        patches: counts round n disks (n, P, P).
        models: what the dictionary expects there (n, P, P).
        intensity: counts in each disk (n,).
        shift: place of each disk (n, 2) in pixels from the middle of its patch.
        prior_counts: what the prior is worth.

    Returns:
        The dictionary with the new profile.
    """
    samples = dictionary.disk.shape[-1]
    gain = spline.adjoint(patches / models * intensity[:, None, None], shift, samples)
    norm = spline.adjoint_of_flat(intensity, shift, dictionary.pixels, samples)
    # Counts in a sample of the prior over its value, as `norm` is for the data.
    prior_norm = prior_counts / dictionary.direct.sum()
    disk = normalised(
        (dictionary.disk * gain + prior_norm * dictionary.direct)
        / (norm + prior_norm).clamp_min(1e-9)
    )
    change = disk - dictionary.direct
    even = 0.5 * (change + change.flip(0, 1))
    return replace(dictionary, disk=normalised((dictionary.direct + even).clamp_min(0)))
