"""A run through Slurm on this machine, held against a local one.

    python tools/slurm.py                                      config/ci.yaml
    python tools/slurm.py mine.yaml results/mine/metrics.csv   another config, or a part of its run

Needs Debian's packages `slurm-wlm` and `munge`, and the extra `slurm`. The Slurm is this program's
own: one node, in a temporary folder, gone at the end.

Snakemake is killed while maps are being made, and the run started again beside the jobs that are
left; then a job is cancelled, and the run started again. The scores must be those of the local run,
all but times and memory, and another run must find nothing to do. Says what Slurm ran, and how long
jobs waited.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from checkout import REAL, Checkout, copy, finished, scores
from one_node_slurm import CORES, ask, missing, one_node_slurm

# Without a database only the controller knows of jobs. What asks for more cores than the node has
# gets all of them.
SLURM = (
    *("--profile", "workflow/profiles/slurm", "--slurm-status-command", "squeue"),
    *("--max-threads", str(CORES)),
)


def snakemake(checkout: Checkout, *words: str) -> subprocess.Popen[str]:
    return checkout.command(sys.executable, "-m", "snakemake", *SLURM, *words)


def jobs(*options: str) -> list[list[str]]:
    """Slurm's jobs, in their order: id, rule with its wildcards, state, when they were sent, began
    and ended."""
    said = ask(
        "squeue", "--array", "--noheader", "--sort=i", "--format=%i|%k|%T|%V|%S|%e", *options
    )
    return [line.strip().split("|") for line in said.splitlines()]


@contextmanager
def while_mapping(checkout: Checkout, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a run, and do what is within as soon as a map of it is being made: the process of
    Snakemake, and Slurm's id of the job. Ends when the process has."""
    before = {job[0] for job in jobs("--states=all")}
    process = snakemake(checkout, *words)
    while True:
        running = [job for job in jobs("--states=running") if job[1].startswith("rule_map")]
        new = [job[0] for job in running if job[0] not in before]
        if new:
            break
        if process.poll() is not None:
            sys.exit(f"no map was made: {finished(process).stderr[-3000:]}")
        time.sleep(0.5)
    yield process, new[0]
    finished(process)


def run(folder: Path, config: Path, targets: list[str]) -> bool:
    """Do all that the first lines tell; whether the scores are the same."""
    name = yaml.safe_load(config.read_text())["name"]
    words = ("--configfile", "config.yaml", "--no-hooks", *targets)
    local, remote = copy(folder / "local", REAL), copy(folder / "slurm", REAL)
    for checkout in (local, remote):
        shutil.copy(config, checkout.path / "config.yaml")
    begun = time.monotonic()
    done = local.snakemake(*words)
    if done.returncode:
        sys.exit(f"the local run failed: {done.stderr[-3000:]}")
    print(f"the local run took {time.monotonic() - begun:.0f} s", flush=True)
    begun = time.monotonic()
    with one_node_slurm():
        with while_mapping(remote, *words) as (process, job):
            os.kill(process.pid, signal.SIGKILL)
            ask("scancel", "--state=PENDING", "--user", str(os.getuid()))
            print(f"Snakemake killed while job {job} runs", flush=True)
        with while_mapping(remote, *words) as (process, job):
            ask("scancel", job)
            print(f"job {job} cancelled", flush=True)
        print(f"Snakemake ended with {process.returncode}", flush=True)
        failed_as_told = process.returncode == 1
        done = finished(snakemake(remote, *words))
        if done.returncode:
            print(done.stderr[-3000:])
        print(f"the three runs through Slurm took {time.monotonic() - begun:.0f} s", flush=True)
        show(jobs("--states=all"))
        again = remote.plan(*words)
    same = scores(local.path / "results" / name) == scores(remote.path / "results" / name)
    print(f"scores of the run through Slurm: {'the same' if same else 'NOT the same'}")
    print(f"another run would do: {again or 'nothing'}")
    return failed_as_told and done.returncode == 0 and same and not again


def show(listed: list[list[str]]) -> None:
    """The jobs as a table for people."""
    print(f"{'job':>7}  {'state':9}  {'waited':>6}  {'ran':>6}  what")
    for job, what, state, sent, began, ended in listed:
        moments = [
            datetime.fromisoformat(moment) if re.match(r"\d", moment) else None
            for moment in (sent, began, ended)
        ]
        waited, ran = (
            f"{(after - before).total_seconds():.0f} s" if after and before else ""
            for before, after in pairwise(moments)
        )
        what = what.removeprefix("rule_").replace("_wildcards_", " ")
        print(f"{job:>7}  {state.lower():9}  {waited:>6}  {ran:>6}  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path, nargs="?", default=ROOT / "config" / "ci.yaml")
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the daemons would stay
    if absent := missing():
        sys.exit(f"error: no {', '.join(absent)}; expected Debian's slurm-wlm and munge")
    if find_spec("snakemake_executor_plugin_slurm") is None:
        sys.exit("error: no plugin; run: python envs/install.py envs/slurm.lock")
    with tempfile.TemporaryDirectory(prefix="ccstae-slurm-", ignore_cleanup_errors=True) as path:
        good = run(Path(path), given.config, given.targets)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
