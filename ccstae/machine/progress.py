"""Progress of long steps: a bar on a terminal, plain lines at intervals in a log."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

INTERVAL_S = 10.0


class Copy(io.TextIOBase):
    """Standard error with a log file beside it: messages go to both, progress as a bar to a
    terminal and as lines to the log.
    """

    def __init__(self, stderr: TextIO, log: TextIO) -> None:
        self.stderr, self.log = stderr, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.stderr.write(text)

    def flush(self) -> None:
        self.log.flush()
        self.stderr.flush()


def copy_stderr(path: Path) -> None:
    """From here on, also write what goes to standard error to a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr = Copy(sys.stderr, open(path, "w", buffering=1))  # noqa: SIM115  (open until the process ends)


def progress(
    iterable: Iterable[Item],
    total: int | None = None,
    label: str = "",
    interval_s: float = INTERVAL_S,
) -> Iterator[Item]:
    """Pass `iterable` on, showing on stderr how far it is.

    A log gets one line every `interval_s` seconds and one at the end, so that its size does not
    depend on the number of items.

    Args:
        iterable: the items.
        total: how many there are; their `len` where left out, unknown where they have none.
        label: stands before the numbers.
        interval_s: from line to line of a log, in seconds.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    copied = sys.stderr if isinstance(sys.stderr, Copy) else None
    console = Console(file=copied.stderr if copied else sys.stderr)
    if console.is_terminal:
        if copied is not None:
            iterable = _lines(iterable, total, label, interval_s, copied.log)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            yield from bar.track(iterable, total=total, description=label)
    else:
        yield from _lines(iterable, total, label, interval_s, sys.stderr)


def _lines(
    iterable: Iterable[Item], total: int | None, label: str, interval_s: float, stream: TextIO
) -> Iterator[Item]:
    begun = shown = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= interval_s and done != total:
            shown = now
            _say(stream, label, done, total, now - begun)
    _say(stream, label, done, total, time.monotonic() - begun)


def _say(stream: TextIO, label: str, done: int, total: int | None, seconds: float) -> None:
    line = f"{label}: {done}{f'/{total}' if total else ''}, {seconds:.1f} s"
    if total and done != total:
        line += f", about {seconds * (total - done) / done:.0f} s left"
    print(line, file=stream, flush=True)
