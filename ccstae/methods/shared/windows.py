"""Pattern tensors in bounded memory, and the small square windows cut from them round the disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.stored import Patterns
from ccstae.machine.device import at_a_time, side_by_side

# Bytes of float32 patterns held at a time on a CPU; the windows cut from them take a small multiple
# of it. They are few enough to stay in its caches: a quarter to a third faster than 16 MiB.
CHUNK_BYTES = 4 * 2**20
# Bytes of float32 patterns taken at a time on a CPU where several images are made of each. They are
# few enough that the memory of one piece serves the next; beyond, the allocator asks the system for
# it anew, which took a quarter of the time.
PIECE_BYTES = 2**19
# What a pattern takes at most with all that is made of it, over its own bytes.
_BYTES_PER_BYTE = 32


def chunk_size(shape: tuple[int, ...], device: str) -> int:
    """Patterns of `shape` (..., Qy, Qx) to take at a time."""
    each = 4 * shape[-1] * shape[-2]
    return at_a_time(CHUNK_BYTES // each, _BYTES_PER_BYTE * each, device)


def slices(number: int, shape: tuple[int, ...], device: str) -> list[slice]:
    """Slices that cut a number of patterns of `shape` (..., Qy, Qx) into chunks."""
    size = chunk_size(shape, device)
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def to_tensor(counts: NDArray[np.unsignedinteger], device: str) -> Tensor:
    """Counts as a float32 tensor on the device."""
    if device == "cpu":
        return torch.from_numpy(counts.astype(np.float32))
    return torch.from_numpy(counts).to(device).float()  # as they are: half the bytes or as many


def chunks(patterns: Patterns, device: str) -> Iterator[tuple[slice, Tensor]]:
    """Patterns of (N, Qy, Qx) in order, as slices of N and float32 tensors (B, Qy, Qx)."""
    for rows in slices(len(patterns), patterns.shape, device):
        yield rows, to_tensor(patterns[rows], device)


def over_scan(
    function: Callable[[Tensor, slice], tuple[Tensor, ...]],
    patterns: Patterns,
    device: str,
    places: NDArray[np.int64] | None = None,
) -> tuple[Tensor, ...]:
    """What a function gives for all patterns of a scan, worked out chunk by chunk.

    Args:
        function: takes patterns (B, Qy, Qx) and which of those asked for they are, and gives
            tensors (B, ...), a row for each pattern.
        patterns: (N, Qy, Qx); chunks of them go side by side.
        device: "cpu" or "cuda".
        places: in scan order, of the patterns asked for; all of them where left out, and then what
            is finished is kept for a map that is killed.

    Returns:
        The tensors of all chunks, one after another.
    """

    def of_chunk(rows: slice) -> tuple[Tensor, ...]:
        chunk = patterns[rows if places is None else places[rows]]
        return function(to_tensor(chunk, device), rows)

    number = len(patterns) if places is None else len(places)
    kept_as = () if places is None else None
    results = side_by_side(of_chunk, slices(number, patterns.shape, device), device, kept_as)
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


def piecewise(function: Callable[..., Tensor], patterns: Tensor, *of_patterns: Tensor) -> Tensor:
    """function(patterns, *of_patterns), on a piece of the patterns (B, Qy, Qx) at a time.

    Each row of the result, and of the tensors (B, ...) beside the patterns, is of one pattern.
    """
    if patterns.device.type == "cuda":
        return function(patterns, *of_patterns)
    pattern_bytes = 4 * patterns.shape[-1] * patterns.shape[-2]
    size = max(1, PIECE_BYTES // pattern_bytes)
    pieces = zip(*(tensor.split(size) for tensor in (patterns, *of_patterns)), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def cut(patterns: Tensor, at: Tensor, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of side n = 2 half + 1 round the pixels nearest to given places.

    Pixels outside the pattern repeat those of its border.

    Args:
        patterns: (B, Qy, Qx).
        at: places (B, S, 2), x and y in pixels; NaN is read as 0.
        half: pixels on either side of the middle one.

    Returns:
        The values (B, S, n, n), and the x (B, S, 1, n) and y (B, S, n, 1) of their pixels relative
        to `at`, in pixels.
    """
    n = 2 * half + 1
    offset = torch.arange(-half, half + 1, device=patterns.device)
    nearest = torch.nan_to_num(at).round().long()
    x, y = nearest[..., 0, None] + offset, nearest[..., 1, None] + offset  # (B, S, n)
    dx = (x - at[..., 0, None]).to(patterns.dtype)[..., None]
    dy = (y - at[..., 1, None]).to(patterns.dtype)[..., None]
    B, height, width = patterns.shape
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    pattern_row = y + height * torch.arange(B, device=patterns.device)[:, None, None]
    if patterns.device.type == "cuda":  # to choose windows at the border would wait for the GPU
        return torch.take(patterns, pattern_row[..., None] * width + x[..., None, :]), dx.mT, dy
    if width < n:
        patterns, width = torch.nn.functional.pad(patterns, (0, n - width)), n
    # Rows of a window are whole pieces of memory, much faster to take than as many single pixels.
    # At the border they begin inside.
    first = x[..., 0].clamp(max=width - n)
    starts = pattern_row * width + first[..., None]
    rows = patterns.contiguous().as_strided((B * height * width - n + 1, n), (1, 1))
    values = rows.index_select(0, starts.flatten()).reshape(*y.shape, n)
    place = x - first[..., None]  # where each pixel is in its row
    outside = (place != torch.arange(n, device=patterns.device)).any(-1).nonzero(as_tuple=True)
    values[outside] = values[outside].gather(-1, place[outside][:, None].expand(-1, n, -1))
    return values, dx.mT, dy


def inside(at: Tensor, margin: float, shape: tuple[int, ...]) -> Tensor:
    """Which positions (..., 2) lie at least `margin` pixels inside the outermost pixel centres of
    (..., Qy, Qx).
    """
    return within(at[..., 0], margin, shape[-1]) & within(at[..., 1], margin, shape[-2])


def within(at: Tensor, margin: float, size: int) -> Tensor:
    """The same along one axis of `size` pixels."""
    return (at >= margin) & (at <= size - 1 - margin)
