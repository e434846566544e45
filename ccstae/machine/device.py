"""Which device work runs on, how much at a time, and what happens where its memory ends."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.machine import finished

Device = Literal["auto", "cpu", "gpu"]
Part = TypeVar("Part")
Result = TypeVar("Result")

GPU_SHARE = 0.5
"""Share of a GPU's memory that one batch may take."""
MAX_ON_GPU = 8192
"""Patterns beyond which a batch on a GPU gains nothing: its kernels are long enough then, and its
tensors stay below the 2^31 elements that they can index fast."""
_division = 1
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def resolve(device: Device) -> Literal["cpu", "cuda"]:
    """Torch's name of the device a setting asks for; `auto` is the GPU where torch sees one.

    Raises:
        InputError: where a GPU is asked for by name and torch sees none.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "gpu":
        raise InputError(
            f"device: gpu was asked for, but torch {torch.__version__} sees none; expected a CUDA "
            f"GPU, or device: auto or cpu"
        )
    return "cpu"


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: the memory of one batch's temporaries then serves the next,
    and the system clears no pages anew.

    Without it a tenth of the processor's time went there. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def slots(device: str, here: bool) -> int:
    """How many GPUs a job asks for, 1 or 0. Needs no torch.

    Args:
        device: of the config.
        here: whether jobs run on this machine. They then share its GPU where NVIDIA's driver shows
            one; another machine is asked for one where the config asks for one by name.
    """
    return int(device != "cpu" and Path("/dev/nvidia0").exists() if here else device == "gpu")


def side_by_side(
    task: Callable[[Part], Result],
    parts: Sequence[Part],
    device: str,
    kept_as: Sequence[type] | None = None,
) -> list[Result]:
    """What a task gives for each part, on a CPU as many at a time as torch has threads: small
    operations go better each on its own core.

    Args:
        task: gives tensors for a part.
        parts: of the work.
        device: "cpu" or "cuda".
        kept_as: the dataclasses in what the task gives, where that is to be kept for a map that is
            killed (`finished`).
    """
    import torch

    if kept_as is not None:
        numbered_task = finished.once(task, len(parts), kept_as, device)
        results = side_by_side(numbered_task, list(enumerate(parts)), device)
        finished.end_of_block()
        return results

    threads = torch.get_num_threads()
    if device != "cpu" or min(threads, len(parts)) == 1:
        return [task(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(task, parts))
    finally:
        torch.set_num_threads(threads)


def at_a_time(on_cpu: int, bytes_each: int, device: str) -> int:
    """How many patterns, or parts of them, to take at a time.

    On a GPU time goes by launches, whatever their size, so as many go together as a share of its
    memory holds. The share is of all its memory, so that one card always takes the same batches.

    Args:
        on_cpu: how many on a CPU, where they are to stay in its caches.
        bytes_each: what each takes with all that is made of it at the same time.
        device: "cpu" or "cuda".
    """
    if device == "cpu":
        return batch(on_cpu)
    import torch

    _, memory = torch.cuda.mem_get_info()
    return batch(min(MAX_ON_GPU, int(GPU_SHARE * memory) // bytes_each))


def batch(size: int) -> int:
    """How many patterns to take at a time where `size` are wanted: all of them, but for a device
    that ran out of memory.
    """
    return max(1, size // _division)


@contextmanager
def smaller_batches(division: int) -> Iterator[None]:
    """In this block, `batch` gives a `division`-th of what is wanted."""
    global _division
    before, _division = _division, division
    try:
        yield
    finally:
        _division = before


def within_memory(what: str, task: Callable[[str], Result], device: str) -> tuple[Result, str]:
    """What task(device) gives, and the device that gave it.

    A GPU that runs out of memory gets smaller batches, then the CPU takes over; a message says so.

    Args:
        what: names the work in the message.
        task: does it on a torch device, in batches of the size that `batch` allows.
        device: to begin with, "cpu" or "cuda".
    """
    if device == "cuda":
        import torch

        for division in (1, 4, 16):
            try:
                with smaller_batches(division):
                    return task(device), device
            except RuntimeError as error:
                if not _tells_of_full_memory(error):
                    raise
                torch.cuda.empty_cache()
                following = (
                    "on the CPU" if division == 16 else f"with batches smaller by {4 * division}"
                )
                print(f"{what}: the GPU is out of memory; again {following}", file=sys.stderr)
    return task("cpu"), "cpu"


def _tells_of_full_memory(error: RuntimeError) -> bool:
    """Whether an error tells of a full GPU; the libraries of CUDA have words of their own."""
    import torch

    words = str(error)
    full = isinstance(error, torch.OutOfMemoryError)
    return full or "out of memory" in words or "ALLOC_FAILED" in words


def spread_over(number: int, most: int) -> NDArray[np.int64]:
    """At most so many of a number of things, evenly spread over all: all where they are no more,
    and otherwise one of each of as many stretches, the i-th where the fraction of i times the
    golden ratio says.

    Of the patterns of a scan, every n-th would be those of a few columns where n and the width of
    the scan have a common divisor, and of one column where n is a multiple of the width.

    >>> spread_over(3, 8).tolist(), spread_over(64, 8).tolist()
    ([0, 1, 2], [0, 12, 17, 30, 35, 40, 53, 58])
    """
    if number <= most:
        return np.arange(number)
    stretch = np.arange(most)
    within = stretch * (math.sqrt(5) - 1) / 2 % 1
    return np.unique(((stretch + within) * number / most).astype(np.int64))


def ceil_div(n: int, k: int) -> int:
    """The smallest whole number that is at least n / k."""
    return -(-n // k)
