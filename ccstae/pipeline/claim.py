"""One run at a time in a results folder, and nothing in the way of the next one after a crash.

A claim is a lock that the system keeps for the process and drops however that ends, so it is never
stale. Snakemake's own locks are files that a killed run leaves behind; who holds the claim knows
that nobody else is running, and clears them away.
"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path
from typing import IO

from ccstae.errors import InputError
from ccstae.io.atomic import left_behind

LOCK = ".lock"
SNAKEMAKE_LOCKS = Path(".snakemake", "locks")


def claim(folder: Path) -> IO[str]:
    """Claim the results folder of a run; what a killed run left behind goes.

    Args:
        folder: of the run; made where it is missing.

    Returns:
        An open file: the claim stands as long as it stays open. Where the file system takes no
        locks there is no claim, and a line says so.

    Raises:
        InputError: where another process holds the claim, or where nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / LOCK, "w")  # noqa: SIM115 (open as long as the claim stands)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written: {error.strerror}; expected a folder for the run's "
            f"results"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InputError(
            f"{folder}: another run is writing there; wait for its end, or give this one another "
            f"name"
        ) from None
    except OSError as error:
        print(
            f"{folder}: its file system takes no locks ({error.strerror}), so whether another run "
            f"is writing there cannot be told: start one at a time",
            file=sys.stderr,
        )
        return handle
    for lock in SNAKEMAKE_LOCKS.glob("*.lock"):
        if f"{folder}/" in lock.read_text():
            lock.unlink()
    for temporary in left_behind(folder):
        temporary.unlink(missing_ok=True)
    return handle
