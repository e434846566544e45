"""Make the Python environment of a lock file, and write down where its Python is, or why there is
none.

    python environment.py envs/py4dstem.lock .environments/py4dstem.python

Never fails: an environment that cannot be made costs its method's row, not the run. Where this
Python already holds what is locked (conda made it so), it is the one. Standard library alone.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

INSTALL = Path(__file__).parents[1] / "envs" / "install.py"


def main(lock: Path, out: Path) -> None:
    try:
        python = sys.executable if holds(lock) else str(make(lock, out.with_suffix("")))
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stdout", None) or str(error)).strip().splitlines()
        reasons = [line for line in said if line.lower().startswith("error")] or said[-1:]
        reason = reasons[0] if reasons else "no reason given"
        python = f"error: it could not be made from {lock}: {reason}"
    print(python)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(python + "\n")


def holds(lock: Path) -> bool:
    """Whether this Python has every package of the lock, at its version."""
    lines = (
        line.removesuffix(" \\")
        for line in lock.read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    wanted = (
        line.split("==") for line in lines if ";" not in line
    )  # those for some systems alone say nothing here
    try:
        return all(metadata.version(name).split("+")[0] == version for name, version in wanted)
    except metadata.PackageNotFoundError:
        return False


def make(lock: Path, folder: Path) -> Path:
    """A fresh virtual environment with the packages of the lock; returns its Python."""
    run(sys.executable, "-m", "venv", "--clear", str(folder))
    python = folder.absolute() / "bin" / "python"
    run(str(python), str(INSTALL), str(lock))
    return python


def run(*words: str) -> None:
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, end="")
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
