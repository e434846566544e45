"""A scan that stays in its file is mapped as one that is held in memory, by every method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contract import SETTINGS
from synthetic import Model, random_deformations

from ccstae.config.methods import modules
from ccstae.config.methods import settings as settings_of
from ccstae.io import counts as io_counts
from ccstae.io import stored
from ccstae.io.counts import StoredCounts, read_counts, write_counts
from ccstae.methods import base

MODEL = Model(px=96)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts with a gap between chips, so that they are corrected as they are read."""
    made = MODEL.counts(random_deformations((3, 8)), 3e4, 0.25)
    mask = np.zeros(made.counts.shape[2:], np.uint8)
    mask[:, 20:22] = 1
    path = tmp_path_factory.mktemp("streaming") / "counts.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe, mask)
    return path


@pytest.mark.parametrize("method", modules())
def test_the_answer_is_the_same_to_the_bit(
    method: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(method)(**SETTINGS.get(method, {}))
    held = base.load(method).map_strain(read_counts(path), settings, "cpu")
    monkeypatch.setattr(io_counts, "MAX_HELD_BYTES", 0)
    monkeypatch.setattr(stored, "SLAB_BYTES", 5 * 96**2 * 2)
    counts = read_counts(path)
    assert isinstance(counts.counts, StoredCounts)
    there = base.load(method).map_strain(counts, settings, "cpu")
    for name in ("F", "covariance", "label", "centre_px", "dictionary"):
        one, other = getattr(held, name), getattr(there, name)
        assert (one is None) == (other is None), name
        assert one is None or one.tobytes() == other.tobytes(), name
    assert there.found == held.found
