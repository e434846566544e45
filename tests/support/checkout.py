"""A checkout of its own, to edit and to break.

With stand-ins for the stages, which only make files with the right names, a run takes seconds. A
plan begins in a process that has Snakemake imported already, which is most of what it costs.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = (
    "ccstae",
    "config",
    "envs",
    "peers",
    "profiles",
    "workflow",
    "tests/baselines",
    "Snakefile",
)

SMALL_CONFIG = """
name: small
materials: {A: &A {prototype: mx2-2h, species: [W, S], a_A: 3.153}, B: *A}
scenes: {one: {kind: heterostructure, materials: [A, B]}}
noise: {one: {electrons: 100}}
seeds: {test: [3], tune: []}
methods: {zero: }
"""

# Stands in for `ccstae`: whatever is named after --out, --exact, --not-run or --picture is there
# afterwards.
STAND_IN = """#!/bin/sh
cat > /dev/null
while [ $# -gt 0 ]; do
    case "$1" in
        --out | --exact | --not-run | --picture)
            case "$2" in
                *.*) mkdir -p "$(dirname "$2")" && [ -e "$2" ] || echo made > "$2" ;;
                *) mkdir -p "$2" && echo made > "$2/file" ;;
            esac
            ;;
    esac
    shift
done
"""


# Is `ccstae`, from the sources of the checkout.
REAL = f"""#!{sys.executable}
from ccstae.cli import main
main()
"""


# Begins clean, and so without the package: every checkout has its own.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["snakemake.cli"])


@dataclass(frozen=True)
class Checkout:
    """A copy of the project."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that put the checkout before all else."""
        path = [str(self.path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        package = filter(None, [str(self.path), os.environ.get("PYTHONPATH")])
        return {
            **os.environ,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": os.pathsep.join(package),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a program in the checkout, in a session of its own."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words,
            cwd=self.path,
            env=self.environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start Snakemake in the checkout."""
        return self.command(sys.executable, "-m", "snakemake", "--cores", "2", *words)

    def snakemake(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the checkout."""
        return finished(self.start(*words))

    def dry_run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same as `snakemake --dry-run`, in a forked process."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdout", "stderr")]
            arguments = ["--cores", "2", "--dry-run", *words]
            given = (self.path, self.environment, files, arguments)
            process = _FORKS.Process(target=_dry_run, args=given)
            process.start()
            process.join()
            said = [file.read_text() for file in files]
        return subprocess.CompletedProcess(arguments, int(process.exitcode or 0), *said)

    def plan(self, *words: str) -> dict[str, int]:
        """How many jobs of each rule a run would have."""
        done = self.dry_run("--quiet", "rules", *words)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        if "Nothing to be done" in said:
            return {}
        table = said.split("Job stats:")[1].split("total")[0]
        return {
            rule: int(jobs)
            for rule, jobs in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
            if rule != "all"
        }

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Change a file of the checkout."""
        path = self.path / name
        path.write_text(change(path.read_text()))


def _dry_run(path: Path, environment: dict[str, str], files: list[Path], words: list[str]) -> None:
    """`python -m snakemake` with these words, in the checkout at `path`."""
    os.chdir(path)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(path))
    sys.dont_write_bytecode, sys.argv = True, ["snakemake", *words]
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    from snakemake.cli import main

    main(words)


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a program's end."""
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def copy(to: Path, program: str = STAND_IN) -> Checkout:
    """Copy the project to a new folder and put `ccstae` beside it, or what stands in for it."""
    for part in PARTS:
        if (ROOT / part).is_dir() and not (ROOT / part).is_symlink():
            shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, to / part, follow_symlinks=False)
    script = to / "bin" / "ccstae"
    script.parent.mkdir()
    script.write_text(program)
    script.chmod(0o755)
    return Checkout(to)


def scores(run_dir: Path) -> list[str]:
    """The scores of a run but for times and memory, which no two runs share."""
    costs = (",seconds,", ",patterns_per_second,", ",peak_memory_bytes,")
    lines = (run_dir / "metrics.csv").read_text().splitlines()
    return [line for line in lines if not any(cost in line for cost in costs)]
