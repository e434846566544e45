"""Install a lock into the Python that runs this: what is pinned with hashes, and nothing else.
Standard library alone.

    python envs/install.py envs/ccstae.lock

torch has a CPU build and one for CUDA, and the machine's own pip configuration decides between
them. Asked for hashes, pip rather takes a build whose index tells them; so the machine's build is
found first, then held against the lock. The CUDA build's libraries are in `cuda.lock`, beside this
file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Errors alone. pip's settings on a machine may name folders of packages that are not there, and pip
# warns of each anew for every package.
QUIETLY = ("--quiet", "--quiet")
CUDA_LOCK = Path(__file__).with_name("cuda.lock")


def pip(*words: str) -> str:
    """Run pip; what it printed. Where it fails, so does this, with pip's own words."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--disable-pip-version-check"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + f"error: pip {words[0]} failed")
    return done.stdout


def install(lock: Path, *words: str) -> None:
    pip("install", *QUIETLY, "--require-hashes", "--no-deps", *words, "--requirement", str(lock))


def install_torch(entry: str) -> None:
    """The machine's build of torch, from its `entry` in a lock."""
    with tempfile.TemporaryDirectory(prefix="torch-") as folder:
        pip("download", *QUIETLY, "--no-deps", "--dest", folder, entry.split()[0])
        lock = Path(folder) / "lock"
        lock.write_text(entry)
        install(lock, "--no-index", "--find-links", folder)
    needed = next(
        line for line in pip("show", "torch").splitlines() if line.startswith("Requires:")
    )
    if "cuda" in needed:
        print("this torch is its CUDA build: its libraries")
        install(CUDA_LOCK)


def main(lock: Path) -> None:
    torch = re.search(r"^torch==(.*\\\n)*.*\n", lock.read_text(), re.M)
    if torch:
        install_torch(torch.group())
    install(lock)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
