"""A checkout of its own in which a run takes seconds: the stages only make files with the right names."""

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
PARTS = ("ccstae", "config", "envs", "profiles", "workflow", "Snakefile")

# Stands in for `ccstae`: whatever is named after --out or --optics is there afterwards.
STAND_IN = """#!/bin/sh
cat > /dev/null
while [ $# -gt 0 ]; do
    case "$1" in
        --out | --optics)
            case "$2" in
                *.*) mkdir -p "$(dirname "$2")" && [ -e "$2" ] || echo made > "$2" ;;
                *) mkdir -p "$2" && echo made > "$2/file" ;;
            esac
            ;;
    esac
    shift
done
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in which the workflow runs on stand-ins."""

    path: Path

    def snakemake(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the checkout."""
        path = os.pathsep.join([str(self.path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.path)}
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *words]
        return subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)

    def plan(self, *words: str) -> dict[str, int]:
        """How many jobs of each rule a run would have."""
        done = self.snakemake("--dry-run", "--quiet", "rules", *words)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        if "Nothing to be done" in said:
            return {}
        table = said.split("Job stats:")[1].split("total")[0]
        return {rule: int(jobs) for rule, jobs in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) if rule != "all"}

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Change a file of the checkout."""
        path = self.path / name
        path.write_text(change(path.read_text()))


def copy(to: Path) -> Checkout:
    """Copy the project to a new folder and put the stand-in beside it."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, to / part)
    stand_in = to / "bin" / "ccstae"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return Checkout(to)
