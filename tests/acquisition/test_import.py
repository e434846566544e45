"""`ccstae import`: every format gives the readings that were written into it, in their places."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
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
    write_dm4,
    write_emd,
    write_emi,
    write_empad,
    write_mib,
    write_mrc,
    write_npy,
    write_ser,
    write_tif,
    write_velox,
    write_zspy,
)
from numpy.typing import NDArray

from ccstae import cli
from ccstae.errors import InputError

AS_IS = ("--electrons-per-unit", "1", "--pedestal", "0")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `ccstae import` with these words: exit code, standard output and error."""

    def of(*words: object) -> tuple[int, str, str]:
        out = tmp_path / "out" / "scan.h5"
        monkeypatch.setattr(sys, "argv", ["ccstae", "import", *map(str, words), "--out", str(out)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        code = int(end.value.code or 0)
        left = [path.name for path in out.parent.glob("*")] if out.parent.exists() else []
        assert left == (["scan.h5"] if code == 0 else [])
        return code, said.out, said.err

    return of


def imported(tmp_path: Path) -> tuple[NDArray[Any], dict[str, Any], NDArray[Any] | None]:
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        mask = file["mask"][...] if "mask" in file else None
        return file["counts"][...], dict(file.attrs), mask


def test_npy(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts()
    assert run(write_npy(tmp_path / "a.npy", data), *AS_IS)[0] == 0
    stored, told, mask = imported(tmp_path)
    assert stored.dtype == np.uint16
    assert mask is None
    np.testing.assert_array_equal(stored, data)
    assert told["detector_file"] == "a.npy"


def test_empad_cuts_the_rows_of_the_camera_and_takes_units(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    data = counts("f4", (3, 4, 128, 128))
    data[1, 2] = np.nan
    pixel = "<calibrated_pixelsize>1.0e-10</calibrated_pixelsize>"
    xml = empad_xml(r"C:\data\a.raw", (3, 4), pixel)
    raw = write_empad(tmp_path / "a.raw", data, xml)
    for file in (raw, raw.with_suffix(".xml")):
        code, said, _ = run(file, *AS_IS)
        assert code == 0
        stored, told, _ = imported(tmp_path)
        np.testing.assert_array_equal(stored, data)
        assert f"{128 * 128} readings missing" in said
        assert told["energy_keV"] == pytest.approx(80)
        assert told["step_A"] == pytest.approx(10)
        assert told["pixel_size_inv_A"] == pytest.approx(0.01)  # 0.1 / nm
        (tmp_path / "out" / "scan.h5").unlink()


def test_empad_without_xml_takes_the_scan_from_its_name(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    data = counts("f4", (3, 4, 128, 128))
    assert run(write_empad(tmp_path / "scan_x4_y3.raw", data), *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_mib(tmp_path: Path, run: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .mib")
    data = counts("u2", (3, 4, 64, 32), dose=1000)
    assert run(write_mib(tmp_path / "a.mib", data), *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_blo(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts("u1", (3, 4, 16, 16))
    assert run(write_blo(tmp_path / "a.blo", data), *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, data)
    assert told["step_A"] == pytest.approx(20)


FLAT = (12, *SHAPE[2:])
STEP, PIXEL, ENERGY = {"step_A": 20.0}, {"pixel_size_inv_A": 0.025}, {"energy_keV": 200.0}
# What writes a file, the words with which it is read, and the units that it tells.
TWINS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], dict[str, float]]] = {
    "hspy": (lambda p: write_by_rosettasciio(p / "a.hspy", counts()), (), STEP | PIXEL),
    "zspy": (lambda p: write_zspy(p / "a.zspy", counts()), (), STEP | PIXEL),
    "dm4": (lambda p: write_dm4(p / "a.dm4", counts()), (), ENERGY | STEP | PIXEL),
    "ser": (lambda p: write_ser(p / "a.ser", counts("i4")), (), STEP),
    "emi": (lambda p: write_emi(p / "a.emi", counts("i4")), (), ENERGY | STEP),
    "mrc": (lambda p: write_mrc(p / "a.mrc", counts().reshape(FLAT)), ("--scan", "3x4"), {}),
    "mrc of floats": (
        lambda p: write_mrc(p / "a.mrc", counts("f4").reshape(FLAT)),
        ("--scan", "3x4"),
        {},
    ),
    "Velox": (
        lambda p: write_velox(p / "a.emd", counts().reshape(FLAT)),
        ("--scan", "3x4"),
        ENERGY | PIXEL,
    ),
    "tif": (lambda p: write_tif(p / "a.tif", counts().reshape(FLAT)), ("--scan", "3x4"), {}),
}


@pytest.mark.parametrize("kind", TWINS)
def test_every_format_gives_what_was_written(
    tmp_path: Path, run: Callable[..., Any], kind: str
) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads it")
    write, words, units = TWINS[kind]
    code, _, said = run(write(tmp_path), *words, *AS_IS)
    assert (code, [line for line in said.splitlines() if line[:7] != "import "]) == (0, [])
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, counts())
    for name in ("step_A", "pixel_size_inv_A", "energy_keV"):
        assert told.get(name) == (pytest.approx(units[name]) if name in units else None)


def test_tvips(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts("u2", (3, 4, 16, 16))
    file = write_by_rosettasciio(tmp_path / "a.tvips", data)
    assert run(file, "--scan", "3x4", *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    np.testing.assert_array_equal(stored, data)
    assert told["energy_keV"] == pytest.approx(200)


WHOLE = {kind: (write, words) for kind, (write, words, _) in TWINS.items() if kind != "zspy"} | {
    "tvips": (
        lambda p: write_by_rosettasciio(p / "a.tvips", counts("u2", (3, 4, 16, 16))),
        ("--scan", "3x4"),
    ),
    "blo": (lambda p: write_blo(p / "a.blo", counts("u1", (3, 4, 16, 16))), ()),
    "mib": (lambda p: write_mib(p / "a.mib", counts("u2", (3, 4, 64, 32))), ("--scan", "3x4")),
}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.7])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_short_is_one_line(
    tmp_path: Path, run: Callable[..., Any], kind: str, share: float
) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads it")
    write, words = WHOLE[kind]
    file = write(tmp_path)
    for part in {file, *file.parent.glob("*.ser")}:
        whole = part.read_bytes()
        part.write_bytes(whole[: int(share * len(whole))])
        code, _, said = run(file, *words, *AS_IS)
        assert code == 2
        (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
        assert line.startswith("error: ")
        assert str(file) in line
        part.write_bytes(whole)


@pytest.mark.parametrize("part", [".zgroup", "Experiments/a scan/data/.zarray", "chunk"])
def test_a_zspy_with_a_part_cut_short_is_one_line(
    tmp_path: Path, run: Callable[..., Any], part: str
) -> None:
    file = write_zspy(tmp_path / "a.zspy", counts())
    path = next((file / "Experiments/a scan/data").glob("0*")) if part == "chunk" else file / part
    path.write_bytes(path.read_bytes()[:20])
    code, _, said = run(file, *AS_IS)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith(f"error: {file}: RosettaSciIO cannot read it")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, None])
def test_dectris_files_cut_short_or_missing_are_one_line(
    tmp_path: Path, run: Callable[..., Any], number: int, share: float | None
) -> None:
    master = write_dectris(tmp_path, counts("u4", FLAT), np.zeros(FLAT[1:], np.uint32))
    part = tmp_path / f"a_data_{number:06d}.h5"
    if share is None:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[: int(share * part.stat().st_size)])
    code, _, said = run(master, "--scan", "3x4", *AS_IS)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith("error: ")
    assert part.name in line


def test_an_emi_without_its_readings_names_them(tmp_path: Path, run: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .emi")
    file = write_emi(tmp_path / "a.emi", counts("i4"))
    (tmp_path / "a_1.ser").unlink()
    code, _, said = run(file, *AS_IS)
    assert code == 2
    assert "a_1.ser" in said


def test_emd_takes_units_from_the_axes(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts("f4")
    assert run(write_emd(tmp_path / "a.emd", data), "--bin", 2, *AS_IS)[0] == 0
    stored, told, _ = imported(tmp_path)
    assert stored.shape == (3, 4, 8, 6)
    assert told["step_A"] == pytest.approx(20)
    assert told["pixel_size_inv_A"] == pytest.approx(0.5)


def test_dectris_puts_files_together_and_takes_the_mask(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    data, mask = counts("u4", (12, 16, 12)), np.zeros((16, 12), np.uint32)
    mask[3, 5] = 1
    master = write_dectris(tmp_path, data, mask)
    assert run(master, "--scan", "3x4", *AS_IS)[0] == 0
    stored, told, marked = imported(tmp_path)
    np.testing.assert_array_equal(stored, data.reshape(SHAPE))
    np.testing.assert_array_equal(marked, mask)
    assert told["energy_keV"] == pytest.approx(200)


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
    tmp_path: Path, run: Callable[..., Any], axes: str, order: tuple[int, ...]
) -> None:
    data = counts()
    file = write_npy(tmp_path / "a.npy", data.transpose(order))
    assert run(file, "--axes", axes, *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data)


def test_a_mirrored_axis_is_turned_round(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts()
    file = write_npy(tmp_path / "a.npy", data[..., ::-1])
    words = ("--axes", "Ry Rx Qy -Qx", "--crop", "Qx=2:12 Ry=1:3")
    assert run(file, *words, *AS_IS)[0] == 0
    np.testing.assert_array_equal(imported(tmp_path)[0], data[1:3, ..., 2:12])


def test_flyback_crop_and_bins(tmp_path: Path, run: Callable[..., Any]) -> None:
    flown = counts("u2", (3, 6, 16, 12))
    file = write_npy(tmp_path / "a.npy", flown.reshape(18, 16, 12))
    words = ("--scan", "3x6", "--skip", 2, "--crop", "Rx=1:4 Qy=4:", "--bin", 3, *AS_IS)
    assert run(file, *words)[0] == 0
    kept = flown[:, 1:4, 4:].astype(int)
    expected = kept.reshape(3, 3, 4, 3, 4, 3).sum((3, 5))
    np.testing.assert_array_equal(imported(tmp_path)[0], expected)


def test_a_scan_that_is_stored_in_one_row(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts()
    for stored in (data.reshape(12, 1, 16, 12), data.reshape(2, 6, 16, 12)):
        file = write_npy(tmp_path / "a.npy", stored)
        assert run(file, "--scan", "3x4", "--crop", "Rx=1:3", *AS_IS)[0] == 0
        np.testing.assert_array_equal(imported(tmp_path)[0], data[:, 1:3])


def test_gain_and_pedestal_are_taken_off(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts("f4")
    file = write_npy(tmp_path / "a.npy", data * 150 + 12)
    words = ("--electrons-per-unit", 1 / 150, "--pedestal", 12, "--bin", 2)
    assert run(file, *words)[0] == 0
    expected = data.reshape(3, 4, 8, 2, 6, 2).sum((3, 5))
    np.testing.assert_allclose(imported(tmp_path)[0], expected, rtol=1e-5, atol=1e-4)


def test_the_largest_number_is_no_reading(tmp_path: Path, run: Callable[..., Any]) -> None:
    data = counts("i2")
    data[:, :, 4, 5] = 2**15 - 1
    assert run(write_npy(tmp_path / "a.npy", data), *AS_IS)[0] == 0
    stored = imported(tmp_path)[0]
    assert np.isnan(stored[:, :, 4, 5]).all()
    assert np.isnan(stored).sum() == 12
    unsigned = data.astype("u2")
    unsigned[:, :, 4, 5] = 2**16 - 1
    assert run(write_npy(tmp_path / "a.npy", unsigned), "--bin", 2, *AS_IS)[0] == 0
    assert (imported(tmp_path)[0][:, :, 2, 2] == 2**32 - 1).all()


BAD = {
    "no file": (lambda p: p / "no.npy", [], "no such file"),
    "no kind": (lambda p: write_npy(p / "a.npy", counts()).rename(p / "a.xyz"), [], "'.xyz'"),
    "a pickle": (
        lambda p: write_npy(p / "a.npy", np.array([{}], dtype=object)),
        [],
        "not a readable NumPy file",
    ),
    "cut short npy": (lambda p: cut(write_npy(p / "a.npy", counts())), [], "NumPy file"),
    "cut short EMPAD": (
        lambda p: cut(write_empad(p / "a.raw", counts("f4", (3, 4, 128, 128)))),
        [],
        "whole ones, of 130 x 128",
    ),
    "fewer frames than EMPAD's XML has": (
        lambda p: write_empad(
            p / "a.raw", counts("f4", (3, 4, 128, 128)), empad_xml("a.raw", (4, 4))
        ),
        [],
        "expected 16: cut short?",
    ),
    "cut short HDF5": (lambda p: cut(write_emd(p / "a.h5", counts())), [], "truncated"),
    "wrong scan": (
        lambda p: write_npy(p / "a.npy", counts()),
        ["--scan", "3x5"],
        "15 positions, and",
    ),
    "scan not told": (
        lambda p: write_npy(p / "a.npy", counts("u2", (12, 16, 12))),
        [],
        "expected --scan ROWSxCOLUMNS, such as 3x4",
    ),
    "axes of another rank": (
        lambda p: write_npy(p / "a.npy", counts()),
        ["--axes", "R Qy Qx"],
        "names 3 axes",
    ),
    "no such axis": (
        lambda p: write_npy(p / "a.npy", counts()),
        ["--axes", "Ry Rx Ky Kx"],
        "'Ky' is no axis",
    ),
    "bins that do not divide": (
        lambda p: write_npy(p / "a.npy", counts()),
        ["--bin", "5"],
        "--crop Qy=0:15 does",
    ),
    "all NaN": (
        lambda p: write_npy(p / "a.npy", np.full(SHAPE, np.nan, "f4")),
        [],
        "no pixel gives a reading",
    ),
    "words": (lambda p: write_npy(p / "a.npy", np.full(SHAPE, "a")), [], "no array of real"),
}


def cut(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3 - 5])
    return path


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line(tmp_path: Path, run: Callable[..., Any], what: str) -> None:
    make, words, expected = BAD[what]
    code, _, said = run(make(tmp_path), *words)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith("error: ")
    assert expected in line


def test_mib_that_lacks_frames(tmp_path: Path, run: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .mib")
    data = counts("u2", (2, 4, 64, 32))
    file = write_mib(tmp_path / "a.mib", data, taken=16)
    code, _, said = run(file)
    assert code == 2
    assert "holds 8 patterns, and says that 16 were taken" in said
    assert run(file, "--scan", "2x4")[0] == 0


def test_swapped_axes_are_told(tmp_path: Path, run: Callable[..., Any]) -> None:
    y, x = np.indices((24, 24))
    disk = np.hypot(y - 12, x - 12) < 3
    data = np.random.default_rng(3).poisson(200.0 * disk + 0.5, (20, 20, 24, 24))
    file = write_npy(tmp_path / "a.npy", data.astype("u2").transpose(2, 3, 0, 1))
    code, _, said = run(file)
    assert code == 2
    assert "looks like --axes 'Qy Qx Ry Rx'" in said
    assert run(file, "--axes", "Qy Qx Ry Rx")[0] == 0


def test_without_rosettasciio_the_extra_is_named(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rsciio", None)
    for name in ("rsciio.quantumdetector", "rsciio.blockfile"):
        monkeypatch.setitem(sys.modules, name, None)
    file = write_mib(tmp_path / "a.mib", counts("u2", (3, 4, 64, 32)))
    code, _, said = run(file)
    assert code == 2
    assert 'pip install "ccstae[files]"' in said
    assert run(write_npy(tmp_path / "a.npy", counts()), *AS_IS)[0] == 0


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 512 MB, through a process that may not have as much."""
    shape = (32, 128, 256, 256)
    data = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "u2", shape)
    data[::4, ::4, ::16, ::16] = 3  # the rest of the file takes no room on the disk
    del data
    words = ["import", str(tmp_path / "a.npy"), "--out", str(tmp_path / "scan.h5")]
    code = "from ccstae.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 2**30


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
def test_real_files(tmp_path: Path, run: Callable[..., Any], name: str) -> None:
    file, (shape, words) = real_file(name), REAL[name]
    if not name.endswith("5"):
        pytest.importorskip("rsciio", reason=f"RosettaSciIO reads {name}")
    if name.endswith("master.h5"):
        pytest.importorskip("hdf5plugin", reason=f"hdf5plugin reads {name}")
    assert run(file, *words)[0] == 0
    assert imported(tmp_path)[0].shape == shape


def test_what_a_blockfile_tells(tmp_path: Path, run: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .blo")
    assert run(real_file("test1.blo"))[0] == 0
    told = imported(tmp_path)[1]
    assert (told["energy_keV"], told["step_A"]) == pytest.approx((200, 128))
    assert told["scan_rotation_deg"] == pytest.approx(25)


def test_input_errors_are_ours() -> None:
    from ccstae.io.detector.files import open_file

    with pytest.raises(InputError):
        open_file("nowhere.npy")
