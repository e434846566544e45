"""Finished parts of a long computation, kept on the disk: one that is killed goes on where it
stopped.

What was kept is used again by the same computation alone: its identity is kept beside it, and
everything that another one left is removed.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

INTERVAL_S = 30.0
"""At most so much work is done again; what takes less leaves nothing."""

Result = TypeVar("Result")
_store: Store | None = None


class Store:
    """Results of finished parts, by the order of the calls and the number of the part."""

    def __init__(self, folder: Path, identity: Callable[[], str]) -> None:
        self.folder, self.identity = folder, identity
        self.calls = 0
        self.new: dict[str, Any] = {}
        self.written = time.monotonic()
        self.lock = threading.Lock()
        told = folder / "identity"
        if folder.exists() and (not told.is_file() or told.read_text() != identity()):
            shutil.rmtree(folder)
        self.files = sorted(folder.glob("*.parts"))

    @property
    def seconds_before(self) -> float:
        """What the kept results took."""
        return sum(int(path.name.split(".")[1]) for path in self.files) / 1000

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
                    self._write()

    def _write(self) -> None:
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "identity").write_text(self.identity())
        milliseconds = round(1000 * (time.monotonic() - self.written))
        number = len(list(self.folder.glob("*.parts")))
        temporary = self.folder / "new"
        torch.save(self.new, temporary)
        os.replace(temporary, self.folder / f"{number:06d}.{milliseconds}.parts")
        self.new, self.written = {}, time.monotonic()


@contextmanager
def keeping(folder: Path, identity: Callable[[], str]) -> Iterator[Store]:
    """In this block, results that are to be kept lie in `folder`, which goes when the block ends
    well.

    Args:
        folder: for this computation alone.
        identity: tells all that the results depend on. What a computation of another identity left
            is removed.
    """
    global _store
    _store = Store(folder, identity)
    try:
        yield _store
    finally:
        _store = None
    shutil.rmtree(folder, ignore_errors=True)


def once(
    task: Callable[[Any], Result], classes: Sequence[type], device: str
) -> Callable[[tuple[int, Any]], Result]:
    """A task of numbered parts that does not do again what was kept.

    Args:
        task: takes a part and gives tensors, in tuples or in dataclasses.
        classes: of these dataclasses.
        device: where the tensors lie.
    """
    store = _store
    if store is None:
        return lambda numbered: task(numbered[1])
    call, store.calls = store.calls, store.calls + 1
    kept = store.read(classes, device)

    def numbered_task(numbered: tuple[int, Any]) -> Result:
        name = f"{call}.{numbered[0]}"
        if name in kept:
            return kept[name]
        result = task(numbered[1])
        store.keep(name, result)
        return result

    return numbered_task
