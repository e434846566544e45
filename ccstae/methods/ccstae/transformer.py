"""The lattice-rigid spatial transformer: disks move with the lattice and keep their shape.

The disks of a pattern sit at s_k = c + M g_k pixels, with M = F^-T, c the direct beam and g_k the
nodes of the reference lattice. An image-affine warp would deform the disks too. The direct beam
holds nearly all electrons and never deforms, so it would pin such a warp to no strain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

Rows = slice | Tensor | NDArray[np.int64]
"""Which patterns of many."""


@dataclass(frozen=True)
class Patches:
    """Windows of p pixels round the K disks of n patterns."""

    middle: Int64[Tensor, "n K 2"]  # x and y of the pixel that the window is centred on
    inside: Float[Tensor, "n K p"]  # 1 on the detector, else 0
    index: Int64[Tensor, "n K p"]  # flat index into the pattern, clamped to it

    def cut(self, images: Tensor) -> Tensor:
        """Values (n, K, p) of images (n, Qy, Qx) or (Qy, Qx); zero off the detector."""
        return self.unmasked(images).mul_(self.inside)

    def unmasked(self, images: Tensor) -> Tensor:
        """The same, but some or other value off the detector."""
        n = self.index.shape[0]
        flat = images.reshape(-1, images.shape[-1] * images.shape[-2]).expand(n, -1)
        return flat.gather(1, self.index.reshape(n, -1)).reshape(self.index.shape)

    def added_to(self, images: Tensor, values: Tensor) -> Tensor:
        """Images (n, Qy, Qx) plus the values (n, K, p) of all windows."""
        values = (values * self.inside).flatten(1)
        return images.flatten(1).scatter_add(1, self.index.flatten(1), values).reshape(images.shape)

    def together(self, values: Tensor, images: Tensor) -> Tensor:
        """For each pixel of each window the sum of what all windows of its pattern hold there,
        (n, K, p), of values (n, K, p); `images` (n, Qy, Qx) are the patterns.
        """
        return self.cut(self.added_to(torch.zeros_like(images), values))

    def shift(self, position: Tensor) -> Tensor:
        """Positions (n, K, 2) in pixels, counted from the middle pixel of each window."""
        return position - self.middle.to(position.dtype)


def positions(M: Tensor, centre: Tensor, g: Tensor) -> Tensor:
    """Places of the disks, s_k = c + M g_k.

    Args:
        M: lattices (n, 2, 2) relative to the reference, F^-T.
        centre: direct beams (n, 2), x and y in pixels.
        g: reference nodes (K, 2) in pixels.

    Returns:
        Positions (n, K, 2) in pixels.
    """
    return centre[:, None] + g @ M.transpose(1, 2)


def square(pixels: int, device: torch.device) -> Tensor:
    """Offsets (pixels^2, 2), x and y, of a square window of odd edge from its middle, rows
    first.
    """
    steps = torch.arange(pixels, device=device) - pixels // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], -1)


def patches(
    position: Tensor, offsets: Tensor, shape: tuple[int, int], good: Tensor | None = None
) -> Patches:
    """Windows round the pixels nearest to the disks.

    Args:
        position: places of the disks (n, K, 2) in pixels.
        offsets: pixels of a window (p, 2), counted from its middle.
        shape: of the detector, (Qy, Qx).
        good: True where a pixel of the detector tells something, (Qy, Qx); None where all do. A bad
            one counts as off the detector.
    """
    height, width = shape
    middle = position.round().long()
    if position.device.type == "cuda":  # to choose among the windows would wait for the GPU
        x, y = (middle[:, :, None] + offsets).unbind(-1)
        inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).to(position.dtype)
        index = y.clamp_(0, height - 1) * width + x.clamp_(0, width - 1)
    else:
        index = flat_index(middle, offsets, width)
        inside = torch.ones(index.shape, dtype=position.dtype, device=position.device)
        # Few windows reach over the border, and only these are checked pixel by pixel, on a
        # detector with a border that takes in every window.
        reach = int(offsets.abs().max())
        size = torch.tensor([width, height], device=middle.device)
        over = ((middle < reach) | (middle >= size - reach)).any(-1).reshape(-1).nonzero()[:, 0]
        border = 2 * reach + 1
        detector = torch.nn.functional.pad(inside.new_ones(shape), [border] * 4).reshape(-1)
        near = middle.reshape(-1, 2)[over].clamp_min(-reach - 1)
        near = torch.minimum(near, size + reach) + border
        place = flat_index(near, offsets, width + 2 * border)
        on_detector = detector.index_select(0, place.reshape(-1)).reshape(place.shape)
        inside.reshape(-1, len(offsets)).index_copy_(0, over, on_detector)
        clamped = index.reshape(-1, len(offsets))[over].clamp_(0, height * width - 1)
        index.reshape(-1, len(offsets)).index_copy_(0, over, clamped)
    if good is not None:
        inside *= good.to(inside.dtype).reshape(-1)[index]
    return Patches(middle, inside, index)


def flat_index(middle: Tensor, offsets: Tensor, width: int) -> Tensor:
    """Index (..., p) of the pixels of windows into an image of this width, rows first."""
    at, of_window = (place[..., 1] * width + place[..., 0] for place in (middle, offsets))
    return at[..., None] + of_window


@dataclass(frozen=True)
class Patterns:
    """n patterns, and what is held fixed about them while their parameters are sought."""

    counts: Float[Tensor, "n Qy Qx"]
    # diffuse counts of the dictionary's mean pattern, about the direct beam of each
    background: Float[Tensor, "n Qy Qx"]
    # expected background scale, against which the deviance is measured
    level: Float[Tensor, " n"]
    # variance per pixel beside that of the counts: of readout, and of what the model leaves out of
    # each disk
    error_variance: Float[Tensor, "n K 1"]
    exact: bool  # whether there is none
    # how firmly each disk is held to the lattice: one over the variance of its stray, px^-2; None
    # where disks do not stray
    stray_precision: Float64[Tensor, "n K"] | None
    good: Bool[Tensor, "Qy Qx"] | None  # pixels that tell something; None where all do

    def windows(self, position: Tensor, offsets: Tensor) -> Patches:
        """`patches` round these places on the detector of the patterns."""
        shape = (self.counts.shape[1], self.counts.shape[2])
        return patches(position, offsets, shape, self.good)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: Rows) -> Patterns:
        return Patterns(
            self.counts[rows],
            self.background[rows],
            self.level[rows],
            self.error_variance[rows],
            self.exact,
            None if self.stray_precision is None else self.stray_precision[rows],
            self.good,
        )
