"""One run at a time in a results folder, and nothing in the way of the next one after a crash.

A claim is a lock that the system keeps for the process and drops however that ends, so it is never
stale. Snakemake's own locks are files that a killed run leaves behind; who holds the claim knows
that nobody else is running, and clears them away.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from ccstae.errors import InputError

LOCK = ".lock"
SNAKEMAKE_LOCKS = Path(".snakemake", "locks")


def claim(folder: Path) -> IO[str]:
    """Claim the results folder of a run; what a killed run left behind goes.

    Args:
        folder: of the run; made where it is missing.

    Returns:
        An open file: the claim stands as long as it stays open.

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
    except OSError:
        handle.close()
        raise InputError(
            f"{folder}: another run is writing there; wait for its end, or give this one another "
            f"name"
        ) from None
    for lock in SNAKEMAKE_LOCKS.glob("*.lock"):
        if f"{folder}/" in lock.read_text():
            lock.unlink()
    for partial in folder.rglob(".*.partial"):
        if not _runs(partial.name.split(".")[-2]):
            partial.unlink(missing_ok=True)
    return handle


def _runs(pid: str) -> bool:
    """Whether the process that a temporary file is named after still runs."""
    return pid.isdigit() and Path("/proc", pid).exists()
