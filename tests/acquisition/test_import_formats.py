"""`ccstae import` of every format: the readings that were written into it, and its units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detector_files import (
    SHAPE,
    counts,
    empad_xml,
    real_file,
    write_blo,
    write_by_rosettasciio,
    write_dectris,
    write_emd,
    write_empad,
    write_mib,
    write_npy,
)
from imported import AS_IS, TWINS, imported


def test_npy(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts()
    assert run_import(write_npy(tmp_path / "a.npy", data), *AS_IS)[0] == 0
    stored, told, mask = imported(tmp_path)
    assert stored.dtype == np.uint16
    assert mask is None
    np.testing.assert_array_equal(stored, data)
    assert told["detector_file"] == "a.npy"


def test_empad_cuts_the_rows_of_the_camera_and_takes_units(
    tmp_path: Path, run_import: Callable[..., Any]
) -> None:
    data = counts("f4", (3, 4, 128, 128))
    data[1, 2] = np.nan
    pixel = "<calibrated_pixelsize>1.0e-10</calibrated_pixelsize>"
    xml = empad_xml(r"C:\data\a.raw", (3, 4), pixel)
    raw = write_empad(tmp_path / "a.raw", data, xml)
    for file in (raw, raw.with_suffix(".xml")):
        code, said, _ = run_import(file, *AS_IS)
        assert code == 0
        stored, told, _ = imported(tmp_path)
        np.testing.assert_array_equal(stored, data)
        assert f"{128 * 128} readings missing" in said
        assert told["energy_keV"] == pytest.approx(80)
        assert told["step_A"] == pytest.approx(10)
        assert told["pixel_size_inv_A"] == pytest.approx(0.01)  # 0.1 / nm
        (tmp_path / "out" / "scan.h5").unlink()


def test_empad_without_xml_takes_the_scan_from_its_name(
    tmp_path: Path, run_import: Callable[..., Any]
) -> None:
    data = counts("f4", (3, 4, 128, 128))
    assert run_import(write_empad(tmp_path / "scan_x4_y3.raw", data), *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_mib(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .mib")
    data = counts("u2", (3, 4, 64, 32), dose=1000)
    assert run_import(write_mib(tmp_path / "a.mib", data), *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_blo(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts("u1", (3, 4, 16, 16))
    assert run_import(write_blo(tmp_path / "a.blo", data), *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, data)
    assert told["step_A"] == pytest.approx(20)


@pytest.mark.parametrize("kind", TWINS)
def test_every_format_gives_what_was_written(
    tmp_path: Path, run_import: Callable[..., Any], kind: str
) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads it")
    write, words, units = TWINS[kind]
    code, _, said = run_import(write(tmp_path), *words, *AS_IS)
    assert (code, [line for line in said.splitlines() if line[:7] != "import "]) == (0, [])
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, counts())
    for name in ("step_A", "pixel_size_inv_A", "energy_keV"):
        assert told.get(name) == (pytest.approx(units[name]) if name in units else None)


def test_tvips(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts("u2", (3, 4, 16, 16))
    file = write_by_rosettasciio(tmp_path / "a.tvips", data)
    assert run_import(file, "--scan", "3x4", *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, data)
    assert told["energy_keV"] == pytest.approx(200)


def test_emd_takes_units_from_the_axes(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    data = counts("f4")
    assert run_import(write_emd(tmp_path / "a.emd", data), "--bin", 2, *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    assert stored.shape == (3, 4, 8, 6)
    assert told["step_A"] == pytest.approx(20)
    assert told["pixel_size_inv_A"] == pytest.approx(0.5)


def test_dectris_puts_files_together_and_takes_the_mask(
    tmp_path: Path, run_import: Callable[..., Any]
) -> None:
    data, mask = counts("u4", (12, 16, 12)), np.zeros((16, 12), np.uint32)
    mask[3, 5] = 1
    master = write_dectris(tmp_path, data, mask)
    assert run_import(master, "--scan", "3x4", *AS_IS)[0] == 0
    stored, told, marked = imported(tmp_path)
    np.testing.assert_array_equal(stored, data.reshape(SHAPE))
    np.testing.assert_array_equal(marked, mask)
    assert told["energy_keV"] == pytest.approx(200)


REAL = {
    "test1.blo": ((3, 2, 144, 144), ()),
    "dd020.dm3": ((1, 1, 256, 256), ()),
    "au_xgrating_20cm.tif": ((1, 1, 256, 256), ()),
    "fpd_file_test.hdf5": ((2, 2, 256, 256), ()),
    "001_4x2_6bit.mib": ((2, 4, 256, 256), ()),
    "002_4x2_6bit_roi128.mib": ((2, 4, 128, 256), ()),
    "test_00_master.h5": ((4, 4, 192, 192), ("--scan", "4x4")),
    "dark_5x5x256x256.ser": ((5, 5, 256, 256), ()),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(tmp_path: Path, run_import: Callable[..., Any], name: str) -> None:
    file, (shape, words) = real_file(name), REAL[name]
    if not name.endswith("5"):
        pytest.importorskip("rsciio", reason=f"RosettaSciIO reads {name}")
    if name.endswith("master.h5"):
        pytest.importorskip("hdf5plugin", reason=f"hdf5plugin reads {name}")
    assert run_import(file, *words)[0] == 0
    assert imported(tmp_path)[0].shape == shape


def test_what_a_blockfile_tells(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .blo")
    assert run_import(real_file("test1.blo"))[0] == 0
    told = imported(tmp_path)[1]
    assert (told["energy_keV"], told["step_A"]) == pytest.approx((200, 128))
    assert told["scan_rotation_deg"] == pytest.approx(25)
