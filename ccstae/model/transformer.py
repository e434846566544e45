"""The lattice-rigid spatial transformer: disks move with the lattice, their shape stays.

A pattern's disks sit at s_k = c + M g_k pixels, with M = F^-T and g_k the reference lattice. An image-affine warp would
deform the disks too, and the direct beam, which holds nearly all electrons and never deforms, would pin it to no strain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Square windows round the disks of n patterns; P is odd."""

    corner: Tensor  # (n, K, 2) int64, x and y of the first pixel
    inside: Tensor  # (n, K, P, P) float, 1 on the detector
    index: Tensor  # (n, K, P, P) int64, flat index into the pattern, clamped to it

    @property
    def pixels(self) -> int:
        return self.index.shape[-1]

    def cut(self, images: Tensor) -> Tensor:
        """Values (n, K, P, P) of images (n, Qy, Qx) or (Qy, Qx); zero off the detector."""
        flat = images.reshape(-1, images.shape[-1] * images.shape[-2])
        n = self.index.shape[0]
        if images.ndim == 2:
            return flat[0][self.index] * self.inside
        return flat.gather(1, self.index.reshape(n, -1)).reshape(self.index.shape) * self.inside

    def shift(self, position: Tensor) -> Tensor:
        """Positions (n, K, 2) in pixels, counted from the centre pixel of each patch."""
        return position - self.corner.to(position.dtype) - self.pixels // 2


def positions(M: Tensor, centre: Tensor, g: Tensor) -> Tensor:
    """s_k = c + M g_k, (n, K, 2), for M (n, 2, 2), centres (n, 2) and reference nodes g (K, 2), all in pixels."""
    return centre[:, None] + g @ M.transpose(1, 2)


def patches(position: Tensor, pixels: int, shape: tuple[int, int]) -> Patches:
    """Patches of odd size round the pixels nearest to positions (n, K, 2)."""
    corner = position.round().long() - pixels // 2
    steps = torch.arange(pixels, device=position.device)
    x = corner[..., 0, None] + steps  # (n, K, P)
    y = corner[..., 1, None] + steps
    inside = ((y >= 0) & (y < shape[0]))[..., :, None] & ((x >= 0) & (x < shape[1]))[..., None, :]
    index = y.clamp(0, shape[0] - 1)[..., :, None] * shape[1] + x.clamp(0, shape[1] - 1)[..., None, :]
    return Patches(corner, inside.to(position.dtype), index)
