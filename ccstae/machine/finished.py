"""Finished parts of a long computation, kept on the disk: one that is killed goes on where it
stopped, and several processes share the work.

What was kept is used again by the same computation alone: the folder is named by all that it
depends on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ccstae.machine import host

INTERVAL_S = 30.0
"""At most so much work is done again; what takes less leaves nothing."""

Part = TypeVar("Part")
Result = TypeVar("Result")
_store: Store | None = None


class BlockDone(Exception):
    """The block of parts that this process was to do is done and kept."""


class Store:
    """Results of finished parts, by the order of the calls and the number of the part."""

    def __init__(
        self, folder: Path, identity: Callable[[], str], block: tuple[int, int] | None
    ) -> None:
        self.folder, self.identity, self.block = folder, identity, block
        self.calls = 0
        self.new: dict[str, Any] = {}
        self.written = time.monotonic()
        self.lock = threading.Lock()
        self.files = sorted(self.own_folder.glob("*.parts")) if folder.exists() else []

    @cached_property
    def own_folder(self) -> Path:
        """Where results of this identity lie."""
        return self.folder / hashlib.sha256(self.identity().encode()).hexdigest()[:16]

    @property
    def seconds_before(self) -> float:
        """What the kept results took, all processes together."""
        return sum(int(path.name.split(".")[-2]) for path in self.files) / 1000

    def read(self, classes: Sequence[type], device: str) -> dict[str, Any]:
        """All that was kept."""
        import torch

        kept: dict[str, Any] = {}
        with torch.serialization.safe_globals(list(classes)):
            for path in self.files:
                kept |= torch.load(path, map_location=device, weights_only=True)
        return kept

    def keep(self, name: str, result: Any) -> None:
        """Keep a result; those of half a minute go into one file."""
        with self.lock:
            self.new[name] = result
            if time.monotonic() - self.written >= INTERVAL_S:
                with suppress(OSError):  # a full disk is for the map to meet
                    self.write()

    def write(self) -> None:
        """Write what is new to a file of its own."""
        import torch

        self.own_folder.mkdir(parents=True, exist_ok=True)
        milliseconds = round(1000 * (time.monotonic() - self.written))
        first = next(iter(self.new), "none")
        name = f"{first}.{host.NAME}.{os.getpid()}.{milliseconds}"
        temporary = self.own_folder / f"{name}.new"
        torch.save(self.new, temporary)
        os.replace(temporary, temporary.with_suffix(".parts"))
        self.new, self.written = {}, time.monotonic()


@contextmanager
def keeping(
    folder: Path, identity: Callable[[], str], block: tuple[int, int] | None = None
) -> Iterator[Store]:
    """In this block, results that are to be kept lie in `folder`, which goes when the block ends
    well.

    Args:
        folder: of what is computed.
        identity: tells all that the results depend on. What a computation of another identity left
            is not used.
        block: (i, n), to do the i-th of n blocks of the parts alone, i from 1 to n, keep them and
            raise `BlockDone`. The folder stays.
    """
    global _store
    _store = Store(folder, identity, block)
    try:
        yield _store
    finally:
        _store = None
    if block is None:
        shutil.rmtree(folder, ignore_errors=True)


def once(
    task: Callable[[Part], Result], parts: int, classes: Sequence[type], device: str
) -> Callable[[tuple[int, Part]], Result]:
    """A task of numbered parts that does not do again what was kept.

    Args:
        task: takes a part and gives tensors, in tuples or in dataclasses.
        parts: how many there are.
        classes: of these dataclasses.
        device: where the tensors lie.

    Returns:
        A function of the number of a part and the part. It gives None for parts of other blocks.
    """
    store = _store
    if store is None:
        return lambda numbered: task(numbered[1])
    call, store.calls = store.calls, store.calls + 1
    kept = store.read(classes, device)

    def numbered_task(numbered: tuple[int, Part]) -> Result:
        number, part = numbered
        name = f"{call}.{number}"
        if name in kept:
            return kept[name]
        if store.block is not None and number * store.block[1] // parts != store.block[0] - 1:
            return None  # type: ignore[return-value]  # `end_of_block` comes before its use
        result = task(part)
        store.keep(name, result)
        return result

    return numbered_task


def end_of_block() -> None:
    """Where this process does one block of the parts alone, it is done: BlockDone."""
    if _store is not None and _store.block is not None:
        if _store.new:
            _store.write()
        raise BlockDone
