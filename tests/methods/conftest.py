"""A scan that every method can map."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from synthetic import Model, random_deformations

from ccstae.io.calibration import write_calibration


@pytest.fixture(scope="session")
def counts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of 2 x 3 positions. Read only."""
    made = Model().counts(random_deformations((2, 3)), 1e5)
    path = tmp_path_factory.mktemp("counts") / "w0.00_n100000.1.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = made.counts
        write_calibration(file, made.calibration, made.probe)
    return path
