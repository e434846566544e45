"""`ccstae.map_strain` and what a `StrainMap` gives: the same from every kind of array, and in files
that other programs read.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import dask.array
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from checkout import ROOT
from scipy.io import netcdf_file

import ccstae
from ccstae import cli, geometry
from ccstae.errors import InputError
from ccstae.io.counts import write_counts
from ccstae.simulation.ideal import IdealCrystal, errors, random_deformations

CRYSTAL = IdealCrystal()
FIRST_COLUMN = (slice(None), slice(0, 1))


@pytest.fixture(scope="module")
def F() -> np.ndarray:
    made = random_deformations((4, 5), seed=6)
    made[:, 0] = geometry.deformation(0.01, 0.0, 0.0, 0.01)
    return made


@pytest.fixture(scope="module")
def counts(F: np.ndarray) -> np.ndarray:
    return CRYSTAL.counts(F).held()  # without noise


@pytest.fixture(scope="module")
def mapped(counts: np.ndarray) -> ccstae.StrainMap:
    return ccstae.map_strain(counts, CRYSTAL.calibration, method="com", probe=CRYSTAL.probe)


def test_strain_against_a_column_is_the_crystals(mapped: ccstae.StrainMap, F: np.ndarray) -> None:
    truth = geometry.components(F @ np.linalg.inv(F[0, 0]))
    wrong = (
        np.concatenate([mapped.strain(FIRST_COLUMN), mapped.rotation(FIRST_COLUMN)[..., None]], -1)
        - truth
    )
    # What the method's contract allows it on patterns without noise.
    assert np.sqrt((wrong**2).mean((0, 1))).max() < 0.2e-4


def test_the_array_of_the_quickstart_is_mapped_as_written(
    counts: np.ndarray, mapped: ccstae.StrainMap
) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    block = text[text.index("import numpy as np\n") :].split("```")[0]
    names = {"ccstae": ccstae, "counts": counts, "probe": CRYSTAL.probe}
    exec(block, names)
    # its lattice is rounded to four digits
    np.testing.assert_allclose(names["strained"].F, mapped.F, atol=3e-4)


def test_every_kind_of_array_gives_the_same_map(
    counts: np.ndarray, mapped: ccstae.StrainMap, tmp_path: Path
) -> None:
    path = tmp_path / "scan.h5"
    write_counts(path, iter(counts), counts.shape, CRYSTAL.calibration, CRYSTAL.probe)
    assert ccstae.map_strain(path, method="com").F.tobytes() == mapped.F.tobytes()
    lazy = dask.array.from_array(counts, chunks=(3, 2, 64, 128))
    with h5py.File(path) as file:
        for array in (lazy, file["counts"], counts.astype(np.int64)):
            again = ccstae.map_strain(array, CRYSTAL.calibration, method="com", probe=CRYSTAL.probe)
            assert again.F.tobytes() == mapped.F.tobytes()


def test_without_a_probe_an_even_disk_does(counts: np.ndarray, F: np.ndarray) -> None:
    alone = ccstae.map_strain(counts, CRYSTAL.calibration, method="com")
    assert np.sqrt((errors(alone.F, F) ** 2).mean()) < 0.2e-4


def test_what_cannot_be_mapped_is_one_line(counts: np.ndarray) -> None:
    for words, given in (
        ("no calibration", {"counts": counts}),
        ("expected numbers", {"counts": counts[0], "calibration": CRYSTAL.calibration}),
        ("from -1 to", {"counts": -1 * (counts[:1] > 0), "calibration": CRYSTAL.calibration}),
        (
            r"probe: shape \(3, 3\)",
            {"counts": counts, "calibration": CRYSTAL.calibration, "probe": np.ones((3, 3))},
        ),
        ("'template'", {"counts": counts, "calibration": CRYSTAL.calibration, "method": "templat"}),
        ("no such file", {"counts": "nowhere.h5"}),
        ("in it", {"counts": "nowhere.h5", "calibration": CRYSTAL.calibration}),
        ("radius", {"counts": counts, "calibration": CRYSTAL.calibration, "radius": 3}),
    ):
        with pytest.raises(InputError, match=words):
            ccstae.map_strain(**given)


def test_files_hold_the_strain(mapped: ccstae.StrainMap, tmp_path: Path) -> None:
    exx = mapped.strain(FIRST_COLUMN)[..., 0]
    for name in ("strain.h5", "strain.nc", "strain.tif", "strain.csv"):
        mapped.save(tmp_path / name, FIRST_COLUMN)
    with h5py.File(tmp_path / "strain.h5") as file:
        np.testing.assert_array_equal(file["exx"], exx)
        assert file["theta"].attrs["units"] == "rad"
    again = ccstae.StrainMap.read(tmp_path / "strain.h5")
    np.testing.assert_allclose(again.strain(FIRST_COLUMN)[..., 0], exx, atol=1e-12)
    with netcdf_file(tmp_path / "strain.nc", mmap=False) as file:
        np.testing.assert_array_equal(file.variables["exx"][:], exx)
        np.testing.assert_allclose(file.variables["x"][:], 20 * np.arange(5))
        assert file.variables["theta"].units == b"rad"
    with tifffile.TiffFile(tmp_path / "strain.tif") as file:
        assert file.is_imagej
        np.testing.assert_array_equal(file.asarray()[0], exx.astype(np.float32))
        assert file.imagej_metadata["Labels"][:4] == ["exx", "eyy", "exy", "theta / rad"]
    table = pd.read_csv(tmp_path / "strain.csv")
    np.testing.assert_allclose(table["exx"].to_numpy().reshape(4, 5), exx, rtol=1e-8)
    assert list(table["column"][:5]) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"expected a name that ends in one of .h5"):
        mapped.save(tmp_path / "strain.png")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".h5", ".nc", ".tif"]


def test_a_picture_has_a_panel_for_each_component(mapped: ccstae.StrainMap) -> None:
    panels = mapped.plot().axes
    assert len(panels) == 6  # and two scales
    assert panels[0].images[0].get_array().shape == (4, 5)
    assert {panel.images[0].get_clim() for panel in panels[:3]} == {panels[0].images[0].get_clim()}


@pytest.mark.parametrize(("name", "method"), [("xarray", "to_xarray"), ("hyperspy", "to_hyperspy")])
def test_a_library_that_is_missing_is_named(
    mapped: ccstae.StrainMap, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.api", None)
    with pytest.raises(InputError, match=f"pip install {name}"):
        getattr(mapped, method)()


def test_xarray_gets_named_axes_and_units(
    mapped: ccstae.StrainMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is handed over; the library itself need not be installed."""
    stand_in = types.SimpleNamespace(Dataset=lambda variables, coords: (variables, coords))
    monkeypatch.setitem(sys.modules, "xarray", stand_in)
    variables, coords = mapped.to_xarray(FIRST_COLUMN)
    assert variables["theta"][0] == ("y", "x")
    assert variables["theta"][2] == {"units": "rad"}
    np.testing.assert_array_equal(variables["exx"][1], mapped.strain(FIRST_COLUMN)[..., 0])
    assert coords["x"][2] == {"units": "Angstrom"}
    np.testing.assert_allclose(coords["y"][1], 20 * np.arange(4))


def test_the_command_writes_what_the_map_says(
    mapped: ccstae.StrainMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped.save(tmp_path / "map.h5")
    words = ["ccstae", "strain", str(tmp_path / "map.h5"), "--reference", ":,0:1"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "strain.csv")])
    cli.app(standalone_mode=False)
    table = pd.read_csv(tmp_path / "strain.csv")
    exx = mapped.strain(FIRST_COLUMN)[..., 0]
    np.testing.assert_allclose(table["exx"].to_numpy().reshape(4, 5), exx, atol=1e-9)
    assert {"theta_rad", "u_x_Angstrom"} <= set(table.columns)
    assert (tmp_path / "strain.png").stat().st_size > 0
    assert (tmp_path / "strain.displacement.png").stat().st_size > 0


@pytest.mark.parametrize("reference", ["1:2", "first", "0:1,0:1,0:1", "nowhere.npy"])
def test_words_that_are_no_reference_are_one_line(
    mapped: ccstae.StrainMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    mapped.save(tmp_path / "map.h5")
    words = ["ccstae", "strain", str(tmp_path / "map.h5"), "--reference", reference]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "strain.csv")])
    with pytest.raises(InputError, match="expected"):
        cli.app(standalone_mode=False)
    assert not (tmp_path / "strain.csv").exists()
