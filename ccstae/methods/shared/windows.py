"""Pattern tensors in bounded memory, and the small square windows cut from them round the disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.machine.device import batch, side_by_side

# Bytes of float32 patterns held at a time; the windows cut from them take a small multiple of it.
# On a CPU little enough to stay in its caches: a quarter to a third faster than 16 MiB.
CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 16 * 2**20}
# Bytes of float32 patterns taken at a time where several images are made of each. On a CPU little
# enough that the memory of one piece serves the next; beyond, the allocator asks the system for it
# anew, which took a quarter of the time.
PIECE_BYTES = {"cpu": 2**19, "cuda": 16 * 2**20}


def chunk_size(shape: tuple[int, ...], device: str) -> int:
    """Patterns of `shape` (Qy, Qx) to take at a time."""
    return batch(CHUNK_BYTES[device] // (4 * shape[-1] * shape[-2]))


def slices(counts: NDArray[np.unsignedinteger], device: str) -> list[slice]:
    """Slices of N that cut (N, Qy, Qx) into chunks."""
    size = chunk_size(counts.shape, device)
    return [slice(start, min(start + size, len(counts))) for start in range(0, len(counts), size)]


def load(counts: NDArray[np.unsignedinteger], device: str) -> Tensor:
    """Counts as a float32 tensor on the device."""
    return torch.from_numpy(counts.astype(np.float32)).to(device)


def chunks(counts: NDArray[np.unsignedinteger], device: str) -> Iterator[tuple[slice, Tensor]]:
    """Patterns of (N, Qy, Qx) in order, as slices of N and float32 tensors (B, Qy, Qx)."""
    for where in slices(counts, device):
        yield where, load(counts[where], device)


def over_scan(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    counts: NDArray[np.unsignedinteger],
    device: str,
) -> tuple[Tensor, ...]:
    """What function(patterns) gives for patterns (B, Qy, Qx), a row a pattern, for all of (..., Qy,
    Qx); chunks go side by side.
    """
    counts = counts.reshape(-1, *counts.shape[-2:])

    def answer(where: slice) -> tuple[Tensor, ...]:
        return function(load(counts[where], device))

    return tuple(
        torch.cat(parts)
        for parts in zip(*side_by_side(answer, slices(counts, device), device), strict=True)
    )


def piecewise(function: Callable[[Tensor], Tensor], patterns: Tensor) -> Tensor:
    """function(patterns), pattern by pattern, worked out on a piece of the patterns (B, Qy, Qx) at
    a time.
    """
    size = max(
        1, PIECE_BYTES[patterns.device.type] // (4 * patterns.shape[-1] * patterns.shape[-2])
    )
    return torch.cat([function(piece) for piece in patterns.split(size)])


def cut(patterns: Tensor, at: Tensor, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of side 2 half + 1 round the pixels nearest to `at` (B, S, 2), from patterns (B, Qy,
    Qx).

    Returns the values (B, S, n, n) and the x (B, S, 1, n) and y (B, S, n, 1) of their pixels
    relative to `at`, in pixels. Pixels outside the pattern repeat those of its border.
    """
    n = 2 * half + 1
    offset = torch.arange(-half, half + 1, device=patterns.device)
    nearest = torch.nan_to_num(at).round().long()
    x, y = (nearest[..., axis, None] + offset for axis in (0, 1))  # (B, S, n)
    dx, dy = (
        (place - at[..., axis, None]).to(patterns.dtype)[..., None]
        for axis, place in enumerate((x, y))
    )
    B, height, width = patterns.shape
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    if width < n:
        patterns, width = torch.nn.functional.pad(patterns, (0, n - width)), n
    # Rows of a window are whole pieces of memory, much faster to take than as many single pixels.
    # At the border they begin inside.
    first = x[..., 0].clamp(max=width - n)
    starts = (y + height * torch.arange(B, device=patterns.device)[:, None, None]) * width + first[
        ..., None
    ]
    rows = patterns.contiguous().as_strided((B * height * width - n + 1, n), (1, 1))
    values = rows.index_select(0, starts.flatten()).reshape(*y.shape, n)
    place = x - first[..., None]  # where each pixel is in its row
    outside = (place != torch.arange(n, device=patterns.device)).any(-1).nonzero(as_tuple=True)
    values[outside] = values[outside].gather(-1, place[outside][:, None].expand(-1, n, -1))
    return values, dx.mT, dy


def inside(at: Tensor, margin: float, shape: tuple[int, ...]) -> Tensor:
    """Which positions (..., 2) lie at least `margin` pixels inside the outermost pixel centres of
    (Qy, Qx).
    """
    return within(at[..., 0], margin, shape[-1]) & within(at[..., 1], margin, shape[-2])


def within(at: Tensor, margin: float, size: int) -> Tensor:
    """The same along one axis of `size` pixels."""
    return (at >= margin) & (at <= size - 1 - margin)
