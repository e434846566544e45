"""Files from the web, downloaded once and held against their sum; none of them is run."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from ccstae.errors import InputError
from ccstae.io import atomic

CACHE = Path("results") / ".cache"
CACHE_VARIABLE = "CCSTAE_CACHE"
"""Environment variable: a folder of files that need not be downloaded, only ever read."""
_TIMEOUT_S = 60
_PIECE_BYTES = 2**24


def fetched(name: str, url: str, sha256: str, ending: str) -> Path:
    """Where the file of a URL lies on this machine, downloaded where it must be.

    Args:
        name: of the setting, for messages.
        url: of the file.
        sha256: sum that it must have.
        ending: of the name that it is kept under, such as `.npy`.

    Raises:
        InputError: where it cannot be had, or has another sum.
    """
    lent = _lent(url, sha256, ending)
    if lent is not None:
        check_sum(f"{name}.sha256", lent, sha256)
        return lent
    path = _kept(sha256, ending)
    if path.is_file():
        return path
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer,
            atomic.atomic(path) as temporary,
        ):
            with open(temporary, "wb") as file:
                while piece := answer.read(_PIECE_BYTES):
                    file.write(piece)
            check_sum(f"{name}.sha256", temporary, sha256, url)
    except OSError as error:
        raise InputError(
            f"{name}.url: {url} cannot be downloaded: {error}; expected it to be reachable; or "
            f"download it elsewhere and name its folder by {CACHE_VARIABLE}"
        ) from None
    return path


def at_hand(url: str, sha256: str, ending: str) -> bool:
    """Whether the file of a URL need not be downloaded."""
    return _kept(sha256, ending).is_file() or _lent(url, sha256, ending) is not None


def check_sum(name: str, path: Path, sha256: str, where: str | None = None) -> None:
    """InputError where a file has not the sum expected; `where` is what the message calls it."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise InputError(f"{name}: {where or path} has {digest}; expected {sha256}")


def _kept(sha256: str, ending: str) -> Path:
    """Where a download is kept."""
    return CACHE / f"{sha256}{ending}"


def _lent(url: str, sha256: str, ending: str) -> Path | None:
    """The file in the folder of `CACHE_VARIABLE`, under the name of a download that is kept or of
    the URL, whatever its case; None where it is not there.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder or not Path(folder).is_dir():
        return None
    names = {_kept(sha256, ending).name, Path(url.split("?")[0]).name.lower()}
    found = (path for path in sorted(Path(folder).iterdir()) if path.name.lower() in names)
    return next((path for path in found if path.is_file()), None)
