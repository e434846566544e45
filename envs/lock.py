"""Write the locks: every package of the project's environment and of its peers', pinned, with the
hashes of all its files.

    python envs/lock.py

Needs `uv` and `pip` on the path; `make lock` sees to that. uv resolves for every Python and system
at once, and takes the hashes from the index.

- `ccstae.lock` is made from pyproject.toml and holds everything but the libraries of torch's CUDA
  build.
- `cuda.lock` holds those alone. `install.py` installs them where the torch that it got asks for
  them.
- `slurm.lock` holds what the extra `slurm` needs beside them.
- `py4dstem.lock`, `blobfinder.lock` and `quantem.lock` are those of config/peers.yaml's methods,
  `singleorigin.lock` and `tempo4d.lock` those of config/slow-peers.yaml's, `nlpar.lock` that of a
  program of config/neighbours.yaml.

torch is pinned without the name of a build, so the machine's own pip configuration decides between
its CPU and its CUDA build. The index has the hashes of one; that of the wheel that pip takes on
this machine is added. Hashes of the same version that the lock already holds stay, so builds for
other machines are added by running this there.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CUDA_LOCK = ROOT / "envs" / "ccstae.lock", ROOT / "envs" / "cuda.lock"
SLURM_LOCK = ROOT / "envs" / "slurm.lock"
TORCH = "2.13.0"
CUDA = ("nvidia-", "cuda-", "triton")

HEADER = """\
# Every package of the environment, pinned, with the hashes of its files. Made from pyproject.toml
# (with its extras `dev` and `files`) by `make lock`. torch is pinned without the
# name of a build, with hashes of its CPU and its CUDA builds: the machine's own pip configuration
# decides.
"""
SLURM_HEADER = """\
# What runs the workflow on a Slurm cluster, pinned, with the hashes of its files; beside
# `ccstae.lock`. Made from pyproject.toml's extra `slurm` by `make lock`.
"""
PEERS = {
    "py4dstem": "py4DSTEM==0.14.18",
    "blobfinder": "libertem-blobfinder[udf]==0.6.1",
    "quantem": "quantem==0.1.10",
    "nlpar": "pyebsdindex==0.3.10.1",
    "singleorigin": "SingleOrigin==3.0.1\nipython",  # which it imports and does not ask for
    "tempo4d": "tempo4d==0.1.8",
}
PEER_HEADER = """\
# The environment {name} of methods from outside, pinned, with the hashes of its files. Made
# by `make lock`.
"""
CUDA_HEADER = """\
# The libraries of torch's CUDA build, pinned, with the hashes of their files. Made by `make lock`;
# installed where torch asks for them.
"""


def entries(lock: str) -> dict[str, tuple[str, set[str]]]:
    """Of every package its pin (`name==version`, with a marker) and its hashes."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", lock, flags=re.M).strip()):
        pin = block.split(" \\\n")[0]
        name = pin.split("==")[0]
        if name in found:
            sys.exit(f"error: two versions of {name}; expected one for every Python")
        found[name] = pin, set(re.findall(r"sha256:[0-9a-f]{64}", block))
    return found


def resolved(*words: str) -> dict[str, tuple[str, set[str]]]:
    """What uv makes of these requirements, with the one version of torch."""
    options = (
        "--upgrade --universal --python-version 3.11 --generate-hashes --fork-strategy fewest "
        "--quiet --no-header --no-annotate"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraint:
        constraint.write(f"torch=={TORCH}\n")
        constraint.flush()
        command = [
            "uv",
            "pip",
            "compile",
            *words,
            *options.split(),
            "--constraint",
            constraint.name,
        ]
        return entries(
            subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        )


def peer(requirement: str) -> dict[str, tuple[str, set[str]]]:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write(requirement + "\n")
        file.flush()
        return resolved(file.name)


def wheel() -> str:
    """The hash of the torch that pip takes on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            f"torch=={TORCH}",
        ]
        subprocess.run(words, check=True)
        (path,) = Path(folder).iterdir()
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def text(packages: dict[str, tuple[str, set[str]]]) -> str:
    return "".join(
        pin + "".join(f" \\\n    --hash={one}" for one in sorted(hashes)) + "\n"
        for pin, hashes in packages.values()
    )


def main() -> None:
    of_tests = ("--extra", "dev", "--extra", "files")
    alone = resolved("pyproject.toml", *of_tests)
    together = resolved("pyproject.toml", *of_tests, "--extra", "slurm")
    packages = {name: entry for name, entry in together.items() if name in alone}
    slurm = {name: entry for name, entry in together.items() if name not in alone}
    pin, hashes = packages["torch"]
    before, kept = entries(LOCK.read_text())["torch"]
    packages["torch"] = pin, hashes | {wheel()} | (kept if before == pin else set())
    cuda = {name: entry for name, entry in packages.items() if name.startswith(CUDA)}
    written = {
        LOCK: (HEADER, packages),
        CUDA_LOCK: (CUDA_HEADER, cuda),
        SLURM_LOCK: (SLURM_HEADER, slurm),
    }
    for name, requirement in PEERS.items():
        found = peer(requirement)
        found.update({"torch": packages["torch"]} if "torch" in found else {})
        written[LOCK.with_name(f"{name}.lock")] = PEER_HEADER.format(name=name), found
    for path, (header, part) in written.items():
        pinned = {
            name: entry
            for name, entry in part.items()
            if path == CUDA_LOCK or not name.startswith(CUDA)
        }
        new = path.with_suffix(".new")
        new.write_text(header + text(pinned))
        new.replace(path)


if __name__ == "__main__":
    main()
