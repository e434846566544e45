"""`ccstae calibrate` gives back ellipse, descan, disks, probe and lattice of patterns whose own are
known, and refuses what holds no lattice.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from detector_files import real_file
from numpy.typing import NDArray
from scipy import ndimage

from ccstae import cli, geometry
from ccstae.acquisition import lattice, rings
from ccstae.acquisition.calibration import Calibrated, Given, calibrate, write
from ccstae.errors import InputError
from ccstae.io.counts import read_counts
from ccstae.simulation.ideal import IdealCrystal

Array = NDArray[np.float64]

SCAN, ELECTRONS = (12, 16), 3e4
CRYSTAL = IdealCrystal()  # WS2 at 80 kV
ELLIPSE = np.array([[1.02, 0.008], [0.008, 0.985]])
ELLIPSE /= math.sqrt(float(np.linalg.det(ELLIPSE)))


def descan(scan: tuple[int, int] = SCAN) -> Array:
    """Beams (Ry, Rx, 2) on a plane, several pixels over the scan."""
    y, x = np.indices(scan)
    return np.stack([2.3 + 0.25 * x - 0.1 * y, -1.6 + 0.05 * x + 0.3 * y], -1)


def write_stand_in(
    path: Path, crystal: IdealCrystal = CRYSTAL, E: Array = ELLIPSE, vacuum: int = 4, seed: int = 3
) -> Path:
    """A scan file of the crystal on a detector with an ellipse and descan; its first columns are
    vacuum.
    """
    rng = np.random.default_rng(seed)
    # Patterns of F show nodes at F^-T g: a detector that turns g to E g shows those of E^-T.
    F = geometry.inverse_transpose(E)
    away = descan()
    patterns = np.empty((*SCAN, crystal.px, crystal.px))
    for row, column in np.ndindex(SCAN):
        alone = column < vacuum
        at = tuple(away[row, column])
        made = IdealCrystal(a_A=1e-2) if alone else crystal
        diffuse = ndimage.shift(crystal.background, at[::-1], order=1, mode="nearest")
        patterns[row, column] = made.pattern(np.eye(2) if alone else F, at, oversample=3)
        if alone:
            patterns[row, column] /= patterns[row, column].sum()
        patterns[row, column] += diffuse / 9
    with h5py.File(path, "w") as file:
        file["counts"] = rng.poisson(0.9 * ELECTRONS * patterns).astype("u2")
        file.attrs["energy_keV"] = crystal.energy_keV
        file.attrs["step_A"] = 20.0
    return path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("scan") / "scan.h5")


@pytest.fixture(scope="module")
def found(stand_in: Path) -> Calibrated:
    return calibrate(stand_in, Given(material="WS2"))


def test_ellipse_and_pixel_size(found: Calibrated) -> None:
    """To three standard errors of disks of some 4,000 electrons each, all patterns together."""
    np.testing.assert_allclose(found.distortion, ELLIPSE, atol=2.5e-3)
    assert found.calibration.pixel_size_inv_A == pytest.approx(CRYSTAL.pixel_size_inv_A, rel=2e-3)


def test_descan_and_beams(found: Calibrated) -> None:
    expected = CRYSTAL.px // 2 + descan()
    assert np.abs(found.descan_px - expected).max() < 0.05
    assert np.abs(found.beam_px - expected).max() < 0.15
    np.testing.assert_allclose(
        found.calibration.centre_px, np.median(expected.reshape(-1, 2), 0), atol=0.1
    )


def test_disks_and_semiangle(found: Calibrated) -> None:
    assert found.radius_px == pytest.approx(CRYSTAL.radius_px, rel=0.02)
    assert found.calibration.semiangle_mrad == pytest.approx(CRYSTAL.semiangle_mrad, rel=0.02)


def test_the_probe_is_that_of_the_vacuum(found: Calibrated) -> None:
    assert found.vacuum[:, :4].sum() >= 16
    assert not found.vacuum[:, 4:].any()
    y, x = np.indices(found.probe.shape)
    centre = (found.probe * x).sum(), (found.probe * y).sum()
    np.testing.assert_allclose(centre, (64, 64), atol=0.05)
    # Beams within a quarter of a pixel of one another soften the edge; the background of the
    # vacuum patterns, a tenth of all electrons, is no part of the probe.
    assert np.abs(found.probe - CRYSTAL.probe).sum() < 0.08


def test_the_lattice_is_the_materials_as_the_detector_shows_it(found: Calibrated) -> None:
    G = found.calibration.lattice_inv_A
    undone = np.linalg.inv(ELLIPSE) @ G
    assert lattice.match(undone, CRYSTAL.G0)[1] < 5e-3
    assert abs(np.linalg.det(G)) == pytest.approx(abs(np.linalg.det(CRYSTAL.G0)), rel=4e-3)
    assert found.calibration.rotational_symmetry == 6


def test_the_file_is_a_counts_file(stand_in: Path, found: Calibrated) -> None:
    with pytest.raises(InputError, match="no attribute semiangle_mrad"):
        read_counts(stand_in)
    for _ in range(2):  # as often as anyone likes
        write(stand_in, found)
    counts = read_counts(stand_in)
    for name in ("semiangle_mrad", "pixel_size_inv_A", "centre_px", "energy_keV", "step_A"):
        assert getattr(counts.calibration, name) == getattr(found.calibration, name)
    np.testing.assert_array_equal(counts.calibration.lattice_inv_A, found.calibration.lattice_inv_A)
    with h5py.File(stand_in) as file:
        np.testing.assert_array_equal(file["distortion"], found.distortion)
        assert file["beam_px"].shape == (*SCAN, 2)


def test_strain_of_a_distorted_detector_is_undone_exactly(found: Calibrated) -> None:
    """F that a method fits, against the lattice that is written, is E^-T F E^T: docs say how it is
    undone.
    """
    E, G = found.distortion, found.calibration.lattice_inv_A
    F = geometry.deformation(0.03, -0.02, 0.01, 0.4)
    seen = E @ geometry.inverse_transpose(F) @ np.linalg.inv(E) @ G
    fitted = geometry.deformation_from_reciprocal(seen, G)
    np.testing.assert_allclose(geometry.undistorted(fitted, E), F, atol=1e-12)


def test_without_a_material_the_symmetry_tells_the_ellipse(stand_in: Path) -> None:
    alone = calibrate(stand_in, Given())
    np.testing.assert_allclose(alone.distortion, ELLIPSE, atol=2.5e-3)
    assert any("pixel_size_inv_A is not known" in line for line in alone.said)


def test_numbers_that_are_given_stay(stand_in: Path) -> None:
    given = Given(
        material="WS2", pixel_size_inv_A=0.0131, semiangle_mrad=3.05, step_A=7.0, energy_keV=81.0
    )
    kept = calibrate(stand_in, given).calibration
    assert (kept.pixel_size_inv_A, kept.semiangle_mrad) == (0.0131, 3.05)
    assert (kept.step_A, kept.energy_keV) == (7.0, 81.0)


SLIPS = {
    "semiangle in rad": ({"semiangle_mrad": 3e-3}, "looks like rad"),
    "the full angle": ({"semiangle_mrad": 6.0}, "looks like the full angle"),
    "pixel in 1/nm": ({"pixel_size_inv_A": 0.13}, "looks like 1/nm"),
    "pixel with 2 pi": ({"pixel_size_inv_A": 0.0817}, "looks like 2 pi"),
    "energy in eV": ({"energy_keV": 80e3}, "energy_keV given in eV"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_of_units_are_named(stand_in: Path, slip: str) -> None:
    given, expected = SLIPS[slip]
    with pytest.raises(InputError, match=expected):
        calibrate(stand_in, Given(material="WS2", **given))


def test_another_material_is_refused(stand_in: Path) -> None:
    with pytest.raises(InputError, match="is not that of a lattice of 3,5,90"):
        calibrate(stand_in, Given(lattice="3,5,90"))
    with pytest.raises(InputError, match="did you mean 'WS2'"):
        calibrate(stand_in, Given(material="WS3"))


def test_a_mirrored_oblique_lattice_is_refused(tmp_path: Path) -> None:
    """Of two detectors, one the mirror image of the other, one lattice has one alone."""
    a, b, gamma = 3.2, 4.1, 100.0
    angle = math.radians(gamma)
    G = geometry.reciprocal(np.array([[a, b * math.cos(angle)], [0, b * math.sin(angle)]]))
    nodes = geometry.lattice_nodes(G, 0.75)[1:]
    y, x = np.indices((96, 96))

    def disk(at: Array) -> Array:
        return 1 / (1 + np.exp((np.hypot(x - at[0], y - at[1]) - 3.5) / 0.3))

    middle = np.array([48.0, 47.0])
    image = 300 * disk(middle)
    for g in nodes @ G.T / 0.016:
        image = image + 20 * disk(middle + g)
    counts = np.random.default_rng(2).poisson(image + 0.5, (4, 4, 96, 96)).astype("u2")
    for name, stored in (("right", counts), ("mirrored", counts[..., ::-1])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["counts"] = stored
    given = Given(lattice=f"{a},{b},{gamma}", energy_keV=200)
    right = calibrate(tmp_path / "right.h5", given)
    assert right.calibration.pixel_size_inv_A == pytest.approx(0.016, rel=2e-3)
    with pytest.raises(InputError, match=r"mirror image of a lattice of 3\.2,4\.1,100"):
        calibrate(tmp_path / "mirrored.h5", given)


def nothing(shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    if kind == "dark frames":
        fixed = rng.normal(0, 30, shape[2:])
        return (fixed + rng.normal(0, 5, shape)).astype("f4")
    if kind == "zeros":
        return np.zeros(shape, "u2")
    y, x = np.indices(shape[2:])
    disk = np.hypot(x - 30, y - 33) < 4
    return rng.poisson(np.broadcast_to(100 * disk + 0.2, shape)).astype("u2")


@pytest.mark.parametrize("kind", ["dark frames", "zeros", "vacuum"])
def test_what_holds_no_lattice_is_one_line(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = nothing((6, 6, 64, 64), kind)
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["ccstae", "calibrate", str(path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert len(said) == 1
    assert said[0].startswith(f"error: {path}: ")
    assert {"dark frames": "no lattice", "zeros": "no pattern holds", "vacuum": "vacuum"}[kind] in (
        said[0]
    )
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.h5"]


def test_the_picture_is_made(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "found.png"
    words = ["calibrate", str(stand_in), "--material", "WS2", "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", ["ccstae", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert picture.stat().st_size > 20_000


@dataclass(frozen=True)
class Powder:
    """Rings of gold on a camera."""

    E: Array
    pixel: float
    centre: tuple[float, float] = (126.3, 129.1)

    def image(self) -> Array:
        y, x = np.indices((256, 256))
        away = np.stack([(x - self.centre[0]).ravel(), (y - self.centre[1]).ravel()])
        q = np.hypot(*(np.linalg.inv(self.E) @ away)).reshape(256, 256) * self.pixel
        image = 3 * np.exp(-q / 0.3) + 50 * np.exp(-((q / 0.02) ** 2))
        for number, strength in rings.FCC_RINGS:
            place = math.sqrt(number) / 4.078
            image = image + strength * np.exp(-0.5 * ((q - place) / 0.012) ** 2)
        return np.random.default_rng(0).poisson(40 * image).astype(float)


@pytest.mark.parametrize("stretch", [0.0, 0.025, 0.08])
@pytest.mark.parametrize("pixel", [0.009, 0.0123])
def test_rings_tell_ellipse_and_pixel_size(stretch: float, pixel: float) -> None:
    E = np.eye(2) + 0.5 * stretch * np.array([[0.6, 0.8], [0.8, -0.6]])
    E /= math.sqrt(float(np.linalg.det(E)))
    powder = Powder(E, pixel)
    measured = rings.measure(powder.image(), 4.078, "powder")
    np.testing.assert_allclose(measured.distortion, E, atol=1.5e-3)
    assert measured.pixel_size_inv_A == pytest.approx(pixel, rel=3e-3)
    np.testing.assert_allclose(measured.centre, powder.centre, atol=0.2)


def test_no_rings_are_refused() -> None:
    flat = np.random.default_rng(1).poisson(20, (128, 128)).astype(float)
    with pytest.raises(InputError, match="no rings of a face-centred cubic powder"):
        rings.measure(flat, 4.078, "flat")


# The lattices as they are known of these files, and how far each vector may be off: the scatter of
# disks about it. The camera of test1.blo distorts, so that far disks tell another lattice than near
# ones.
REAL = {
    "dd020.dm3": ([[49.9, -5.6], [3.8, 29.5]], 0.4),
    "test1.blo": ([[31.63, 5.84], [-4.44, 19.55]], 0.4),
}


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def of(name: str, *words: str) -> Path:
        pytest.importorskip("rsciio", reason="RosettaSciIO reads real files")
        out = tmp_path / "scan.h5"
        file = real_file(name)
        monkeypatch.setattr(sys, "argv", ["ccstae", "import", str(file), "--out", str(out), *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return out

    return of


@pytest.mark.parametrize("name", REAL)
def test_real_lattices(imported: Callable[..., Path], name: str) -> None:
    expected, tolerance = REAL[name]
    G = calibrate(imported(name), Given()).found.G
    for g in np.array(expected):
        whole = np.rint(np.linalg.solve(G, g))
        assert np.linalg.norm(G @ whole - g) < tolerance
    assert abs(np.linalg.det(G)) == pytest.approx(abs(np.linalg.det(np.array(expected))), rel=0.02)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fpd_file_test.hdf5", ()),
        ("001_4x2_6bit.mib", ()),
        ("002_4x2_6bit_roi128.mib", ()),
        ("test_00_master.h5", ("--scan", "4x4")),
        ("dark_5x5x256x256.ser", ()),
        ("au_xgrating_20cm.tif", ()),
    ],
)
def test_real_files_without_a_lattice_give_none(
    imported: Callable[..., Path], name: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"no lattice: |no pattern holds"):
        calibrate(imported(name, *words), Given())
