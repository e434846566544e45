"""`ccstae import` of what is damaged, missing or no scan: one line that says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detector_files import (
    SHAPE,
    counts,
    empad_xml,
    write_blo,
    write_by_rosettasciio,
    write_dectris,
    write_emd,
    write_emi,
    write_empad,
    write_mib,
    write_npy,
    write_zspy,
)
from imported import AS_IS, FLAT, TWINS

from ccstae.errors import InputError

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
    tmp_path: Path, run_import: Callable[..., Any], kind: str, share: float
) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads it")
    write, words = WHOLE[kind]
    file = write(tmp_path)
    for part in {file, *file.parent.glob("*.ser")}:
        whole = part.read_bytes()
        part.write_bytes(whole[: int(share * len(whole))])
        code, _, said = run_import(file, *words, *AS_IS)
        assert code == 2
        (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
        assert line.startswith("error: ")
        assert str(file) in line
        part.write_bytes(whole)


@pytest.mark.parametrize("part", [".zgroup", "Experiments/a scan/data/.zarray", "chunk"])
def test_a_zspy_with_a_part_cut_short_is_one_line(
    tmp_path: Path, run_import: Callable[..., Any], part: str
) -> None:
    file = write_zspy(tmp_path / "a.zspy", counts())
    path = next((file / "Experiments/a scan/data").glob("0*")) if part == "chunk" else file / part
    path.write_bytes(path.read_bytes()[:20])
    code, _, said = run_import(file, *AS_IS)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith(f"error: {file}: RosettaSciIO cannot read it")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, None])
def test_dectris_files_cut_short_or_missing_are_one_line(
    tmp_path: Path, run_import: Callable[..., Any], number: int, share: float | None
) -> None:
    master = write_dectris(tmp_path, counts("u4", FLAT), np.zeros(FLAT[1:], np.uint32))
    part = tmp_path / f"a_data_{number:06d}.h5"
    if share is None:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[: int(share * part.stat().st_size)])
    code, _, said = run_import(master, "--scan", "3x4", *AS_IS)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith("error: ")
    assert part.name in line


def test_an_emi_without_its_readings_names_them(
    tmp_path: Path, run_import: Callable[..., Any]
) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .emi")
    file = write_emi(tmp_path / "a.emi", counts("i4"))
    (tmp_path / "a_1.ser").unlink()
    code, _, said = run_import(file, *AS_IS)
    assert code == 2
    assert "a_1.ser" in said


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
def test_bad_input_is_one_line(tmp_path: Path, run_import: Callable[..., Any], what: str) -> None:
    make, words, expected = BAD[what]
    code, _, said = run_import(make(tmp_path), *words)
    assert code == 2
    (line,) = [line for line in said.splitlines() if not line.startswith("import ")]
    assert line.startswith("error: ")
    assert expected in line


def test_mib_that_lacks_frames(tmp_path: Path, run_import: Callable[..., Any]) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads .mib")
    data = counts("u2", (2, 4, 64, 32))
    file = write_mib(tmp_path / "a.mib", data, taken=16)
    code, _, said = run_import(file)
    assert code == 2
    assert "holds 8 patterns, and says that 16 were taken" in said
    assert run_import(file, "--scan", "2x4")[0] == 0


def test_without_rosettasciio_the_extra_is_named(
    tmp_path: Path, run_import: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rsciio", None)
    for name in ("rsciio.quantumdetector", "rsciio.blockfile"):
        monkeypatch.setitem(sys.modules, name, None)
    file = write_mib(tmp_path / "a.mib", counts("u2", (3, 4, 64, 32)))
    code, _, said = run_import(file)
    assert code == 2
    assert 'pip install "ccstae[files]"' in said
    assert run_import(write_npy(tmp_path / "a.npy", counts()), *AS_IS)[0] == 0


def test_input_errors_are_ours() -> None:
    from ccstae.io.detector.files import open_file

    with pytest.raises(InputError):
        open_file("nowhere.npy")
