"""Counts that stay in their file are the counts that are held in memory, however they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic import Model, random_deformations

from ccstae.errors import InputError
from ccstae.io import counts as io_counts
from ccstae.io import stored
from ccstae.io.calibration import write_calibration
from ccstae.io.counts import Counts, StoredCounts, read_counts, write_counts

MODEL = Model(px=96)
SCAN = (3, 7)
MADE = MODEL.counts(random_deformations(SCAN, seed=4), 1e5, 0.25, seed=5)
RNG = np.random.default_rng(6)
NOISE = RNG.normal(0, 2, MADE.counts.shape)


def with_gaps(counts: np.ndarray) -> np.ndarray:
    """Readings missing here and there, a pixel without any, and a lost pattern."""
    counts = counts.astype(np.float32)
    counts[RNG.random(counts.shape) < 1e-3] = np.nan
    counts[..., 40, 50] = np.nan
    counts[1, 3] = np.nan
    return counts


def with_a_hot_and_a_dead_pixel(counts: np.ndarray) -> np.ndarray:
    counts = counts.copy()
    counts[..., 10, 12], counts[..., 48, 48] = 50_000, 0
    return counts


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda counts: counts,
    "16 bits": lambda counts: counts.astype(np.uint16),
    "64 bits": lambda counts: counts.astype(np.uint64),
    "a hot and a dead pixel": with_a_hot_and_a_dead_pixel,
    "wrapped": lambda counts: np.rint(counts + NOISE).astype(np.int64).astype(np.uint16),
    "readout": lambda counts: (counts + NOISE).astype(np.float64),
    "gaps": with_gaps,
}


def written(path: Path, counts: np.ndarray, chunks: tuple[int, ...] | None) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("counts", data=counts, chunks=chunks)
        write_calibration(file, MADE.calibration, MADE.probe)
    return path


def in_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Counts:
    with monkeypatch.context() as patch:
        patch.setattr(io_counts, "MAX_HELD_BYTES", 0)
        return read_counts(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [None, (1, 5, 96, 96), (2, 2, 48, 32)])
def test_a_scan_in_its_file_is_the_scan_in_memory(
    kind: str, chunks: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "counts.h5", KINDS[kind](MADE.counts), chunks)
    held = read_counts(path)
    assert isinstance(held.counts, np.ndarray)
    # pieces of four patterns
    monkeypatch.setattr(stored, "SLAB_BYTES", 4 * 96**2 * held.counts.dtype.itemsize)
    there = in_its_file(path, monkeypatch)
    assert isinstance(there.counts, StoredCounts)
    assert there.counts.shape == held.counts.shape == (*there.scan, *there.detector)
    assert there.counts.dtype == held.counts.dtype
    assert there.bad_pixels == held.bad_pixels
    assert np.array_equal(there.good, held.good)
    assert there.probe.tobytes() == held.probe.tobytes()
    for places in (
        slice(None),
        slice(3, 11),
        slice(None, None, 4),
        np.array([20, 0, 7, 8, 6, 7]),
        np.array([], int),
    ):
        assert there.patterns[places].tobytes() == held.patterns[places].tobytes()
    assert there.patterns[9].tobytes() == held.counts[1, 2].tobytes()
    rows = np.stack(list(there.scan_rows()))
    assert rows.tobytes() == np.stack(list(held.scan_rows())).tobytes() == held.counts.tobytes()


def test_a_damaged_piece_is_said_when_it_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        counts = file.create_dataset(
            "counts", data=MADE.counts, chunks=(1, 7, 96, 96), compression="gzip"
        )
        piece = counts.id.get_chunk_info(2)
    with open(tmp_path / "counts.h5", "r+b") as raw:
        raw.seek(piece.byte_offset)
        raw.write(b"\xff" * piece.size)
    with h5py.File(tmp_path / "counts.h5") as file:
        there = stored.StoredPatterns(file["counts"], file, file["counts"].dtype)
        assert there[:14].tobytes() == MADE.counts[:2].tobytes()
        with pytest.raises(InputError, match=r"counts\.h5: not a readable HDF5 file"):
            there[13:15]


@pytest.mark.parametrize(
    ("brightest", "dtype"), [(64_511, "u2"), (64_512, "u4"), (70_000, "u4"), (2**32 - 1, "u4")]
)
def test_counts_are_stored_in_16_bits_where_none_could_be_a_mark(
    brightest: int, dtype: str, tmp_path: Path
) -> None:
    counts = MADE.counts.copy()
    counts[-1, 2, 48, 48] = brightest  # in the last row, when the others are written
    path = tmp_path / "counts.h5"
    write_counts(path, counts, counts.shape, MADE.calibration, MADE.probe)
    with h5py.File(path) as file:
        assert file["counts"].dtype == dtype
        assert "narrow" not in file
        assert np.array_equal(file["counts"][...], counts)
