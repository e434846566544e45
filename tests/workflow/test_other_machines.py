"""Real runs whose jobs or files lie elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkout import REAL, ROOT, Checkout, copy
from one_node_slurm import missing

TINY = Path(__file__).with_name("tiny.yaml")
RUN = Path("results/tiny")


@pytest.mark.long
@pytest.mark.skipif(
    bool(missing()) or find_spec("snakemake_executor_plugin_slurm") is None,
    reason="needs Debian's slurm-wlm and munge, and: python envs/install.py envs/slurm.lock",
)
def test_a_run_through_slurm_survives_kills_with_the_scores_of_a_local_one() -> None:
    done = subprocess.run(
        [
            *("timeout", "1500"),  # which lets it end its daemons, as no kill does
            *(sys.executable, "tools/slurm.py", str(TINY), str(RUN / "metrics.csv")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scores of the run through Slurm: the same" in done.stdout


@pytest.mark.long
@pytest.mark.skipif(
    find_spec("snakemake_storage_plugin_fs") is None or shutil.which("rsync") is None,
    reason="needs rsync, and: python envs/install.py envs/slurm.lock",
)
def test_machines_that_share_no_folder_make_one_run(tmp_path: Path) -> None:
    """Two checkouts and a store: the second gets from the store what its jobs declare, and no
    more."""
    first, second = (machine(tmp_path, name) for name in ("first", "second"))
    store = tmp_path / "store"
    for checkout, words in ((first, ("--until", "map")), (second, ())):
        done = checkout.snakemake(
            *("--configfile", "tiny.yaml", "--no-hooks", "--shared-fs-usage", "none"),
            *("--default-storage-provider", "fs", "--default-storage-prefix", str(store), *words),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert [path.name for path in (checkout.path / RUN).iterdir()] == [".lock"]
    assert "rmse" in (store / RUN / "metrics.csv").read_text()
    assert "com" in (store / RUN / "report.html").read_text()
    assert json.loads((store / RUN / "provenance.json").read_text())["rules"]


def machine(folder: Path, name: str) -> Checkout:
    made = copy(folder / name, REAL)
    shutil.copy(TINY, made.path / TINY.name)
    return made
