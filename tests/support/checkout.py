"""A checkout of its own, to edit and to break.

With stand-ins for the stages, which only make files with the right names, a run takes seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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


@dataclass(frozen=True)
class Checkout:
    """A copy of the project."""

    path: Path

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a program in the checkout, in a session of its own."""
        path = os.pathsep.join(
            [str(self.path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(self.path), os.environ.get("PYTHONPATH")])
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words,
            cwd=self.path,
            env=environment,
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

    def plan(self, *words: str) -> dict[str, int]:
        """How many jobs of each rule a run would have."""
        done = self.snakemake("--dry-run", "--quiet", "rules", *words)
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
