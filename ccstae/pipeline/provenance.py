"""What made a run: versions, commit, machine, seeds, and what each rule took."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ccstae.config.run import Config
from ccstae.io import atomic, layout
from ccstae.machine import host
from ccstae.version import __version__

PACKAGES = (
    "abtem",
    "ase",
    "h5py",
    "matplotlib",
    "numpy",
    "pandas",
    "pydantic",
    "scipy",
    "snakemake",
    "torch",
)


def write(config: Config, run_dir: Path, path: Path) -> None:
    """Write what made a run, as `collect` tells it, as JSON.

    Args:
        config: of the run.
        run_dir: its folder, with Snakemake's benchmark files.
        path: where it goes.

    Raises:
        InputError: where the system takes no more of it.
    """
    atomic.write_text(path, json.dumps(collect(config, run_dir), indent=2) + "\n")


def collect(config: Config, run_dir: Path) -> dict[str, Any]:
    """What made a run.

    Args:
        config: of the run.
        run_dir: its folder, with Snakemake's benchmark files.

    Returns:
        What JSON can hold: versions, commit, machine, seeds, and the cost of every rule with
        benchmark files; times in seconds, memory in bytes.
    """
    return {
        "run": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"ccstae": __version__} | {name: metadata.version(name) for name in PACKAGES},
        "host": host.NAME,
        "cpu": {"model": host.cpu_model(), "cores": host.cores()},
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": gpus(),
        "device": config.device,
        "seeds": {"test": list(config.seeds.test), "tune": list(config.seeds.tune)},
        "rules": costs(run_dir / layout.BENCHMARKS),
    }


def commit() -> dict[str, Any]:
    """The commit of the package's checkout and whether it was edited; both None outside of one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "edited": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "edited": None}


def gpus() -> list[str]:
    """Names of the GPUs that torch sees."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def costs(benchmarks: Path) -> dict[str, dict[str, Any]]:
    """For every rule its jobs, their wall time in seconds (sum), and the largest peak of resident
    memory in bytes.

    Snakemake writes `<rule>/<job>.tsv`, or `<rule>.tsv` for a rule of one job. It samples memory
    every few seconds, so a job too short to be sampled has none.
    """
    rules: dict[str, dict[str, Any]] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        name = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        rule = rules.setdefault(name, {"jobs": 0, "seconds": 0.0, "peak_memory_bytes": None})
        with open(path, newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                rule["jobs"] += 1
                rule["seconds"] = round(rule["seconds"] + float(row["s"]), 3)
                peak = _number(row["max_rss"]) * 2**20
                if not math.isnan(peak):
                    rule["peak_memory_bytes"] = max(rule["peak_memory_bytes"] or 0, int(peak))
    return rules


def _number(text: str) -> float:
    return math.nan if text in ("NA", "-", "") else float(text)
