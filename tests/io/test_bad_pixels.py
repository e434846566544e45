"""Bad pixels are found, whatever they hold, and no pixel of a good detector is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drawn
import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io import bad_pixels, beside
from ccstae.io.calibration import write_calibration
from ccstae.io.counts import Counts, read_counts, write_counts
from ccstae.io.silent_pixels import Disks
from ccstae.simulation.ideal import IdealCrystal, random_deformations

MODEL = IdealCrystal()
SCAN = (2, 3)


def scan(electrons: float = 1e6, background: float = 0.0) -> Counts:
    return MODEL.counts(random_deformations(SCAN, seed=2), electrons, background, seed=3)


def through_a_file(
    path: Path, made: Counts, counts: np.ndarray, probe: np.ndarray | None = None, **more: Any
) -> Counts:
    with h5py.File(path, "w") as file:
        file["counts"] = counts
        write_calibration(file, made.calibration, made.probe if probe is None else probe)
        for name, value in more.items():
            file[name] = value
    return read_counts(path)


def cross(shape: tuple[int, ...], wide: int = 3) -> np.ndarray:
    """The gap between four chips."""
    y, x = np.indices(shape)
    half = wide // 2
    return (abs(y - shape[0] // 2) <= half) | (abs(x - shape[1] // 2) <= half)


@pytest.mark.parametrize("seed", range(40))
def test_a_good_detector_has_no_bad_pixel(seed: int) -> None:
    """Disks of 1 to 8 px with any edge that a detector leaves, at any dose, noise-free or not, on
    any place of the detector, and saturated.
    """
    rng = np.random.default_rng(seed)
    radius, nearest = rng.choice([1, 1.5, 2, 3, 5, 8]), rng.choice([2.3, 3, 5])
    shape = (int(rng.choice([40, 64])), 48)
    g = nearest * radius * np.array([[1, 0.5], [0, 0.75**0.5]])
    centre = rng.uniform(0, np.array(shape[::-1]))
    means = []
    for _ in range(int(rng.choice([1, 5]))):
        at = centre + rng.normal(0, rng.choice([0, 0.5, 5]), 2)
        mean = drawn.disk(shape, at, radius)
        turn = geometry.rotation_matrix(rng.choice([0, 0.2]))
        for hk in geometry.lattice_nodes(g, max(shape), 4)[1:]:
            mean += 0.02 * drawn.disk(shape, at + turn @ g @ hk, radius)
        means.append(gaussian_filter(mean, rng.choice([0.3, 0.6])))
    background = rng.choice([0, 1e-3, 0.5])
    mean = (1 - background) * np.array(means) + background / mean.size
    dtype = np.dtype(rng.choice(["u1", "u2", "u4", "f4"]))
    electrons = 10 ** rng.uniform(2, 9)
    if dtype.kind == "u":
        most = 0.9 * np.iinfo(dtype).max if dtype == "u4" else np.iinfo(dtype).max
        electrons = min(electrons, most / mean.max() * rng.choice([0.5, 1, 8]))
    counts = rng.poisson(electrons * mean) if seed % 2 else np.rint(electrons * mean)
    if dtype.kind == "u":
        counts = counts.clip(0, np.iinfo(dtype).max)
    elif rng.random() < 0.5:
        counts = counts + rng.normal(0, 2, counts.shape)  # noise of readout
    counts = counts.astype(dtype)
    left = counts.copy()
    disks = Disks(float(radius), float((nearest - 2) * radius))
    found = bad_pixels.find(left, np.zeros(shape, bool), disks, "drawn.h5")
    assert found.numbers == {}
    assert found.good.all()
    left = found.taken_out(left, np.arange(len(left)))
    assert left.tobytes() == counts.tobytes()


@pytest.mark.parametrize("electrons", [1e3, 1e5, 1e9, np.inf])
@pytest.mark.parametrize("background", [0, 0.5])
def test_counts_of_a_crystal_are_read_as_they_are(
    electrons: float, background: float, tmp_path: Path
) -> None:
    made = scan(electrons, background)
    read = through_a_file(tmp_path / "counts.h5", made, made.counts)
    assert read.bad_pixels == {}
    assert read.good.all()
    assert read.counts.tobytes() == made.counts.tobytes()
    assert read.probe.tobytes() == made.probe.tobytes()


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8"])
def test_pixels_that_hold_the_largest_number_are_bad(dtype: str, tmp_path: Path) -> None:
    made = scan()
    counts = made.counts.astype(dtype)
    marked = cross(MODEL.probe.shape)
    marked[7, 9] = marked[60, 70] = True
    counts[..., marked] = np.iinfo(dtype).max
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    np.testing.assert_array_equal(read.good, ~marked)
    assert read.bad_pixels == {"without a reading": marked.sum()}
    assert (read.counts[..., marked] == 0).all()
    np.testing.assert_array_equal(read.counts[..., ~marked], made.counts[..., ~marked])


@pytest.mark.parametrize("dtype", ["u4", "f4"])
def test_marks_of_a_narrower_detector_are_found(dtype: str, tmp_path: Path) -> None:
    made = scan()
    counts = made.counts.astype(dtype)
    marked = cross(MODEL.probe.shape)
    counts[..., marked] = 65535
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    np.testing.assert_array_equal(read.good, ~marked)


def test_a_saturated_beam_is_no_mark(tmp_path: Path) -> None:
    made = scan(1e8)
    assert made.counts.max() > 5 * 65535
    counts = made.counts.clip(0, 65535).astype("u2")
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    assert read.bad_pixels == {}


@pytest.mark.parametrize("dtype", ["u2", "u4"])
def test_wrapped_negative_numbers_are_filled(dtype: str, tmp_path: Path) -> None:
    made = MODEL.counts(random_deformations((4, 5), seed=2), 1e5, 0.3, seed=3)
    rng = np.random.default_rng(0)
    wrapped = rng.random(made.counts.shape) < 0.01
    counts = made.counts.astype(dtype)
    counts[wrapped] = 65535 - rng.integers(0, 200, wrapped.sum())
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    assert read.good.mean() > 0.97
    filled = wrapped & read.good
    assert read.bad_pixels["readings filled"] > 0.98 * filled.sum()
    off = read.counts[filled].astype(float) - made.counts[filled]
    assert np.abs(off).mean() < 0.1 * made.counts.max()
    untouched = ~wrapped & read.good
    np.testing.assert_array_equal(read.counts[untouched], made.counts[untouched])


def test_wrapped_noise_of_readout_is_brought_back(tmp_path: Path) -> None:
    made = MODEL.counts(random_deformations((4, 5), seed=2), 1e5, seed=3)
    noise = np.rint(np.random.default_rng(0).normal(0, 3, made.counts.shape))
    electrons = made.counts + noise
    wrapped = electrons.astype(np.int64).astype(np.uint16)
    read = through_a_file(tmp_path / "counts.h5", made, wrapped)
    assert read.good.all()
    np.testing.assert_array_equal(read.counts, electrons)
    assert read.bad_pixels == {"negative readings, wrapped": (electrons < 0).sum()}


@pytest.mark.parametrize("wide", [1, 3])
@pytest.mark.parametrize("background", [0, 0.5])
def test_a_dead_cross_through_the_beam_is_found(
    wide: int, background: float, tmp_path: Path
) -> None:
    made = scan(1e6, background)
    dead = cross(MODEL.probe.shape, wide)
    counts = np.where(dead, 0, made.counts)
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    np.testing.assert_array_equal(read.good, ~dead)
    assert read.bad_pixels == {"dead": dead.sum()}


def test_single_dead_and_hot_pixels_are_found(tmp_path: Path) -> None:
    made = scan(1e7, 0.5)
    bad = np.zeros(MODEL.probe.shape, bool)
    x, y = (round(place) for place in MODEL.calibration.centre_px)
    bad[y, x] = bad[30, 90] = True
    counts = np.where(bad, 0, made.counts)
    for at in ((20, 100), (90, 15), (0, 50), (127, 127)):
        bad[at] = True
        counts[..., *at] = 30_000_000
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    np.testing.assert_array_equal(read.good, ~bad)
    assert read.bad_pixels == {"dead": 2, "hot": 4}


def test_pixels_without_a_count_at_low_dose_are_not_dead(tmp_path: Path) -> None:
    made = scan(300)
    assert (made.counts.sum((0, 1)) == 0).mean() > 0.9
    assert through_a_file(tmp_path / "counts.h5", made, made.counts).good.all()


def test_metadata_rows_of_an_empad_frame_are_bad(tmp_path: Path) -> None:
    made = scan()
    frame = np.zeros((*SCAN, 130, 128), np.uint32)
    frame[..., :128, :] = made.counts
    frame[..., 128, :] = 1_065_353_216
    probe = np.zeros((130, 128), np.float32)
    probe[:128], probe[129] = made.probe, 7
    read = through_a_file(tmp_path / "counts.h5", made, frame, probe)
    assert read.good.sum() == 128 * 128
    assert not read.good[128:].any()
    np.testing.assert_allclose(read.probe[:120], made.probe[:120], atol=1e-6)


def test_mask_and_missing_readings_of_floats(tmp_path: Path) -> None:
    made = scan(1e5, 0.5)
    counts = made.counts.astype(float)
    counts[0, 0, 3, 3] = -0.75
    counts[..., 40, 50] = np.nan
    mask = np.zeros(MODEL.probe.shape, np.uint8)
    mask[10:12] = 4
    counts[..., 10, 0] = np.inf  # a mask says that nothing there matters
    read = through_a_file(tmp_path / "counts.h5", made, counts, mask=mask)
    assert read.counts.dtype == np.float32
    assert read.bad_pixels == {"masked": 256, "without a reading": 1}
    assert not read.good[10:12].any()
    assert not read.good[40, 50]
    assert read.counts[0, 0, 3, 3] == -0.75
    assert np.isfinite(read.counts).all()
    assert (read.counts[..., ~read.good] == 0).all()


def test_a_reading_missing_once_is_filled_and_a_lost_pattern_is_empty(tmp_path: Path) -> None:
    made = MODEL.counts(random_deformations((4, 5), seed=2), 1e5, seed=3)
    counts = made.counts.astype(np.float32)
    x, y = (round(place) for place in MODEL.calibration.centre_px)
    counts[1, 2, y, x] = np.nan
    counts[3, 0] = np.nan
    read = through_a_file(tmp_path / "counts.h5", made, counts)
    assert read.good.all()
    assert read.bad_pixels == {"readings filled": 1, "patterns without readings": 1}
    truth = float(made.counts[1, 2, y, x])
    assert abs(read.counts[1, 2, y, x] - truth) < 5 * truth**0.5
    assert (read.counts[3, 0] == 0).all()


def test_a_mask_that_leaves_little_is_refused(tmp_path: Path) -> None:
    made = scan()
    mask = np.ones(MODEL.probe.shape)
    mask[:20] = 0
    with pytest.raises(InputError, match=r"counts.h5: 84% of the pixels are bad .*nonzero on bad"):
        through_a_file(tmp_path / "counts.h5", made, made.counts, mask=mask)


@pytest.mark.parametrize(("dtype", "stored"), [(np.uint32, np.uint16), (np.float32, np.float32)])
def test_writing_keeps_floats_and_the_mask(dtype: type, stored: type, tmp_path: Path) -> None:
    made = scan()
    mask = cross(MODEL.probe.shape)
    rows = made.counts.astype(dtype) + dtype(0.25)
    shape = made.counts.shape
    write_counts(tmp_path / "a.h5", rows, shape, made.calibration, made.probe, mask)
    read = read_counts(tmp_path / "a.h5")
    assert read.counts.dtype == stored
    np.testing.assert_array_equal(read.good, ~mask)
    np.testing.assert_array_equal(read.counts[..., ~mask], rows[..., ~mask])


def test_the_probe_may_be_in_any_unit_and_lie_on_a_halo(tmp_path: Path) -> None:
    made = scan()
    y, x = np.indices(MODEL.probe.shape)
    off = np.hypot(x - MODEL.calibration.centre_px[0], y - MODEL.calibration.centre_px[1])
    halo = 1 / (1 + (off / 12) ** 2)
    probes = {
        "electrons": 3.7e8 * made.probe,
        "counts": np.rint(1e6 * made.probe).astype("u4"),
        "pedestal": 1e5 * made.probe + 100,
        "noise": 1e5 * made.probe + np.random.default_rng(0).normal(0, 5, off.shape),
        "halo": 0.6 * made.probe + 0.4 * halo / halo.sum(),
    }
    for name, probe in probes.items():
        read = through_a_file(tmp_path / f"{name}.h5", made, made.counts, probe.astype("f8"))
        assert read.probe.sum() == pytest.approx(1, abs=1e-5), name
        assert np.abs(read.probe - made.probe).sum() < 0.05, name


def test_patterns_are_filled_from_both_sides_of_a_gap() -> None:
    y, _ = np.indices((20, 20))
    good = ~cross((20, 20))
    filled = beside.filled((10.0 * y)[None] * good, good)
    np.testing.assert_allclose(filled[0][good], 10.0 * y[good])
    assert np.abs(filled[0] - 10 * y).max() <= 20
    assert filled[0, 10, 2] == pytest.approx(100)
