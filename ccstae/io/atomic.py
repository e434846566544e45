"""Files that are whole or not there: written under a temporary name, flushed, and renamed."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ccstae.errors import InputError
from ccstae.machine import host

# How a system says that it takes no more.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals of what is written inside the block into errors for people.

    Args:
        path: names the file in the message.

    Raises:
        InputError: where the system takes no more: disk full, quota, read-only.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise InputError(
            f"{path}: cannot be written: {reason}; expected room and the right to write there"
        ) from None


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well and goes when it
    does not.

    Args:
        path: the final one; its folder is made where it is missing.

    Raises:
        InputError: where the system takes no more of it; see `writing`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{host.NAME}.{os.getpid()}.partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            publish(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def left_behind(folder: Path) -> Iterator[Path]:
    """Temporary files in a folder whose process ran on this machine and has ended. Those of other
    machines, which may share the folder, are not to be judged from here.
    """
    for temporary in folder.rglob(f".*.{host.NAME}.*.partial"):
        pid = temporary.name.split(".")[-2]
        if not (pid.isdigit() and Path("/proc", pid).exists()):
            yield temporary


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its final name, once all of it is on the disk."""
    with open(temporary, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def reserve(path: Path) -> None:
    """Have the system set aside room for all of a sparse file: later writes inside it cannot meet a
    full disk, where HDF5 may crash or leave zeros.

    Linux alone; other systems go without.

    Raises:
        OSError: where there is no room.
    """
    if sys.platform == "linux":
        with open(path, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, os.fstat(handle.fileno()).st_size)


def _refusal(error: BaseException) -> str | None:
    """The system's reason for taking no more, None for any other error. HDF5 gives the number in
    its text alone.
    """
    in_text = re.search(r"errno = (\d+)", str(error))
    code = int(in_text[1]) if in_text else getattr(error, "errno", None)
    return os.strerror(code) if code in _REFUSALS else None


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: where the system takes no more of it.
    """
    with atomic(path) as temporary:
        temporary.write_text(text)
