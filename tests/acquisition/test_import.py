"""`ccstae import` puts readings in their places, whatever their order; gain, crops and bins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detector_files import (
    counts,
    write_npy,
)
from imported import AS_IS, imported


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ("Qy Qx Ry Rx", (2, 3, 0, 1)),
        ("Qy,Qx,Rx,Ry", (2, 3, 1, 0)),
        ("Rx Ry Qx Qy", (1, 0, 3, 2)),
        ("Ry Qy Rx Qx", (0, 2, 1, 3)),
    ],
)
def test_axes_in_any_order(
    tmp_path: Path, run_import: Callable[..., Any], axes: str, order: tuple[int, ...]
) -> None:
    data = counts()
    file = write_npy(tmp_path / "a.npy", data.transpose(order))
    assert run_import(file, "--axes", axes, *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_a_mirrored_axis_is_turned_round(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts()
    file = write_npy(tmp_path / "a.npy", data[..., ::-1])
    words = ("--axes", "Ry Rx Qy -Qx", "--crop", "Qx=2:12 Ry=1:3")
    assert run_import(file, *words, *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data[1:3, ..., 2:12])


def test_flyback_crop_and_bins(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    flown = counts("u2", (3, 6, 16, 12))
    file = write_npy(tmp_path / "a.npy", flown.reshape(18, 16, 12))
    words = ("--scan", "3x6", "--skip", 2, "--crop", "Rx=1:4 Qy=4:", "--bin", 3, *AS_IS)
    assert run_import(file, *words)[0] == 0
    kept = flown[:, 1:4, 4:].astype(int)
    expected = kept.reshape(3, 3, 4, 3, 4, 3).sum((3, 5))
    np.testing.assert_array_equal(imported(tmp_path)[0], expected)


def test_a_scan_that_is_stored_in_one_row(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts()
    for stored in (data.reshape(12, 1, 16, 12), data.reshape(2, 6, 16, 12)):
        file = write_npy(tmp_path / "a.npy", stored)
        assert run_import(file, "--scan", "3x4", "--crop", "Rx=1:3", *AS_IS)[0] == 0
        np.testing.assert_array_equal(imported(tmp_path)[0], data[:, 1:3])


def test_gain_and_pedestal_are_taken_off(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts("f4")
    file = write_npy(tmp_path / "a.npy", data * 150 + 12)
    words = ("--electrons-per-unit", 1 / 150, "--pedestal", 12, "--bin", 2)
    assert run_import(file, *words)[0] == 0
    expected = data.reshape(3, 4, 8, 2, 6, 2).sum((3, 5))
    np.testing.assert_allclose(imported(tmp_path)[0], expected, rtol=1e-5, atol=1e-4)


def test_the_largest_number_is_no_reading(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts("i2")
    data[:, :, 4, 5] = 2**15 - 1
    assert run_import(write_npy(tmp_path / "a.npy", data), *AS_IS)[0] == 0
    stored = imported(tmp_path)[0]
    assert np.isnan(stored[:, :, 4, 5]).all()
    assert np.isnan(stored).sum() == 12
    unsigned = data.astype("u2")
    unsigned[:, :, 4, 5] = 2**16 - 1
    assert run_import(write_npy(tmp_path / "a.npy", unsigned), "--bin", 2, *AS_IS)[0] == 0
    assert (imported(tmp_path)[0][:, :, 2, 2] == 2**32 - 1).all()


def test_swapped_axes_are_told(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    y, x = np.indices((24, 24))
    disk = np.hypot(y - 12, x - 12) < 3
    data = np.random.default_rng(3).poisson(200.0 * disk + 0.5, (20, 20, 24, 24))
    file = write_npy(tmp_path / "a.npy", data.astype("u2").transpose(2, 3, 0, 1))
    code, _, said = run_import(file)
    assert code == 2
    assert "looks like --axes 'Qy Qx Ry Rx'" in said
    assert run_import(file, "--axes", "Qy Qx Ry Rx")[0] == 0


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 512 MB, through a process that may not have as much."""
    shape = (32, 128, 256, 256)
    data = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "u2", shape)
    data[::4, ::4, ::16, ::16] = 3  # the rest of the file takes no room on the disk
    del data
    words = ["import", str(tmp_path / "a.npy"), "--out", str(tmp_path / "scan.h5")]
    # Of this process alone: ru_maxrss begins at what its parent has, a worker that ran other tests.
    code = """
import sys
from ccstae.cli import main
try:
    main()
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak.split()[1], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True
    )
    assert int(done.stderr.splitlines()[-1]) * 1024 < 2**30
