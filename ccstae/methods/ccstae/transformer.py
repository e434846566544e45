"""The lattice-rigid spatial transformer: disks move with the lattice, their shape stays.

A pattern's disks sit at s_k = c + M g_k pixels, with M = F^-T and g_k the reference lattice. An
image-affine warp would deform the disks too, and the direct beam, which holds nearly all electrons
and never deforms, would pin it to no strain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Windows of p pixels round the disks of n patterns."""

    middle: Tensor  # (n, K, 2) int64, x and y of the pixel that the window is centred on
    inside: Tensor  # (n, K, p) float, 1 on the detector
    index: Tensor  # (n, K, p) int64, flat index into the pattern, clamped to it

    def cut(self, images: Tensor) -> Tensor:
        """Values (n, K, p) of images (n, Qy, Qx) or (Qy, Qx); zero off the detector."""
        n = self.index.shape[0]
        flat = images.reshape(-1, images.shape[-1] * images.shape[-2]).expand(n, -1)
        return flat.gather(1, self.index.reshape(n, -1)).reshape(self.index.shape).mul_(self.inside)

    def shift(self, position: Tensor) -> Tensor:
        """Positions (n, K, 2) in pixels, counted from the middle pixel of each window."""
        return position - self.middle.to(position.dtype)


def positions(M: Tensor, centre: Tensor, g: Tensor) -> Tensor:
    """s_k = c + M g_k, (n, K, 2), for M (n, 2, 2), centres (n, 2) and reference nodes g (K, 2), all
    in pixels.
    """
    return centre[:, None] + g @ M.transpose(1, 2)


def square(pixels: int, device: torch.device) -> Tensor:
    """Offsets (pixels^2, 2), x and y, of a square window of odd edge from its middle, rows
    first."""
    steps = torch.arange(pixels, device=device) - pixels // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], -1)


def patches(position: Tensor, offsets: Tensor, shape: tuple[int, int]) -> Patches:
    """Windows of pixels at `offsets` (p, 2) round the pixels nearest to positions (n, K, 2)."""
    middle = position.round().long()
    index = (middle[..., 1] * shape[1] + middle[..., 0])[..., None] + (
        offsets[:, 1] * shape[1] + offsets[:, 0]
    )  # (n, K, p)
    inside = torch.ones(index.shape, dtype=position.dtype, device=position.device)
    # Few windows reach over the border: only these are looked at pixel by pixel.
    reach = offsets.abs().amax(0)
    over = (
        (middle < reach)
        | (middle >= torch.tensor([shape[1], shape[0]], device=reach.device) - reach)
    ).any(-1)
    x, y = (middle[over][:, None] + offsets).unbind(-1)
    inside[over] = ((y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])).to(inside.dtype)
    index[over] = y.clamp_(0, shape[0] - 1) * shape[1] + x.clamp_(0, shape[1] - 1)
    return Patches(middle, inside, index)
