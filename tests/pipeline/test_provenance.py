"""Provenance: the cost of every rule from the benchmark files, and what it says of machine and
code.
"""

from __future__ import annotations

import json
from pathlib import Path

from ccstae import __version__
from ccstae.config.run import load
from ccstae.pipeline import provenance

ROOT = Path(__file__).parents[2]
HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path: Path, seconds: str, rss: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + f"{seconds}\t0:00:01\t{rss}\t1\t1\t1\t0\t0\t50\t1\n")


def test_costs_add_time_and_keep_the_largest_peak(tmp_path: Path) -> None:
    benchmark(tmp_path / "map" / "scene" / "clean.1" / "com.tsv", "1.5", "100.5")
    benchmark(tmp_path / "map" / "scene" / "clean.2" / "com.tsv", "2.25", "300.25")
    benchmark(tmp_path / "map" / "scene" / "clean.2" / "zero.tsv", "0.1", "NA")
    benchmark(tmp_path / "score.tsv", "0.2", "NA")
    assert provenance.costs(tmp_path) == {
        "map": {"jobs": 3, "seconds": 3.85, "peak_memory_bytes": int(300.25 * 2**20)},
        "score": {"jobs": 1, "seconds": 0.2, "peak_memory_bytes": None},
    }


def test_what_is_written_names_versions_machine_and_seeds(tmp_path: Path) -> None:
    benchmark(tmp_path / "run" / "benchmarks" / "score.tsv", "0.2", "10")
    path = tmp_path / "run" / "provenance.json"
    provenance.write(load(ROOT / "config" / "default.yaml"), tmp_path / "run", path)
    written = json.loads(path.read_text())
    assert written["run"] == "default"
    assert written["versions"]["ccstae"] == __version__
    assert written["versions"]["torch"].startswith("2.13.0")
    assert written["seeds"] == {"test": [1, 2], "tune": [101]}
    assert written["cpu"]["model"]
    assert 1 <= written["cpu"]["cores"] <= 4096
    assert written["memory_bytes"] > 2**28
    assert list(written["rules"]) == ["score"]
