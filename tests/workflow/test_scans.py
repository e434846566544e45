"""Recorded scans in the workflow, with a stand-in for `ccstae`: which jobs a run has, and which an
edit runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import Checkout, copy

WORDS = ("--configfile", "config/mine.yaml")
CONFIG = f"""
name: mine
scans:
  here: {{path: a.raw, skip: 1, material: WS2, energy_keV: 80}}
  there: {{url: "https://example.org/b.npy", sha256: "{"0" * 64}"}}
methods: {{zero: , com: , oracle: }}
"""
READ = {"tables": 1, "figures": 1, "report": 1, "provenance": 1}
# Of one scan and two methods: the third needs truth.
MAPPED = {"map_scan": 2, "precision": 2, **READ}
CALIBRATED = {"import_scan": 1, "calibrate": 1, **MAPPED}

pytestmark = pytest.mark.xdist_group("scans")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy(tmp_path_factory.mktemp("scans") / "checkout")
    (checkout.path / "config" / "mine.yaml").write_text(CONFIG)
    (checkout.path / "a.raw").write_text("frames")
    plan = checkout.plan(*WORDS)
    assert plan == {
        **{"fetch": 1, "import_scan": 2, "calibrate": 2, "map_scan": 4, "precision": 4},
        **{"resolve": 1, "score": 1, **READ},
    }
    done = checkout.snakemake(*WORDS, "--no-hooks")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


def test_a_second_run_finds_nothing_to_do(finished: Checkout) -> None:
    assert finished.plan(*WORDS) == {}
    made = {path.name for path in (finished.path / "results/mine/scans").iterdir()}
    for scan in ("here", "there"):
        files = ("h5", "import.txt", "calibration.txt", "calibration.png")
        assert {f"{scan}.{name}" for name in files} <= made
        assert not (finished.path / f"results/mine/scans/{scan}/imported.h5").exists()


def setting(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        config = root / "config" / "mine.yaml"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return change


def code(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with open(root / name, "a") as file:
            file.write("# another comment\n")

    return change


EDITS = {
    "how a scan is calibrated": (
        setting("energy_keV: 80", "energy_keV: 60"),
        {"resolve": 1, "score": 1, **CALIBRATED},
    ),
    "the detector's file": (lambda root: (root / "a.raw").write_text("other frames"), CALIBRATED),
    "a method": (
        code("ccstae/methods/com/method.py"),
        {"map_scan": 2, "precision": 2, **READ},
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns_just_what_it_touches(finished: Checkout, edit: str) -> None:
    change, expected = EDITS[edit]
    kept = {
        path: path.read_bytes()
        for path in (
            finished.path / name
            for name in (
                "config/mine.yaml",
                "a.raw",
                "ccstae/methods/com/method.py",
            )
        )
    }
    change(finished.path)
    try:
        assert finished.plan(*WORDS) == expected
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_file_that_is_not_here_is_the_jobs_to_miss(finished: Checkout) -> None:
    """So that a config whose file is elsewhere can be planned."""
    (finished.path / "config" / "none.yaml").write_text(
        "{name: none, scans: {one: {path: data/none.npy}}, methods: {zero: }}"
    )
    assert finished.plan("--configfile", "config/none.yaml")["import_scan"] == 1
