"""The site finder's tables are bounded, and hold the whole detector where there is room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae.errors import InputError
from ccstae.methods.shared import sites
from ccstae.methods.shared.sites import SiteFinder

MODEL = Model()


def test_tables_of_a_usual_scan_hold_every_whole_ring() -> None:
    finder = SiteFinder.blank(MODEL.calibration, (128, 128), "cpu")
    length = (finder.hk.float() @ torch.from_numpy(MODEL.G0).float().T).norm(dim=-1)
    assert len(finder.hk) == 18
    assert length.max() / length.min() == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("side", [256, 512])
def test_small_disks_on_a_large_detector_get_fewer_sites(side: int) -> None:
    """Ten orders of disks of 2 px and more: the inner rings alone, which still span the lattice."""
    calibration = replace(
        MODEL.calibration,
        lattice_inv_A=np.diag([0.1, 0.1]) * 256 / side,
        semiangle_mrad=1.2,
        centre_px=(side / 2, side / 2),
        rotational_symmetry=2,
    )
    finder = SiteFinder.blank(calibration, (side, side), "cpu")
    size = sites.BYTES_PER_SITE * len(finder.hk) * len(finder.G)
    assert size <= sites.MAX_PATTERN_BYTES
    assert len(finder.hk) < len(sites.nodes(calibration, (side, side)))
    assert np.linalg.matrix_rank(finder.hk.numpy()) == 2


def test_disks_too_small_for_any_table_are_refused() -> None:
    calibration = replace(
        MODEL.calibration,
        semiangle_mrad=0.02,
        centre_px=(512, 512),
        lattice_inv_A=MODEL.G0 / 3,
        rotational_symmetry=2,
    )
    with pytest.raises(InputError, match=r"disks of radius 0\.0368 px are too small .*64 MiB"):
        SiteFinder.blank(calibration, (1024, 1024), "cpu")


def test_a_detector_without_a_disk_is_refused() -> None:
    calibration = replace(MODEL.calibration, lattice_inv_A=10 * MODEL.G0)
    with pytest.raises(InputError, match="shows no disk"):
        SiteFinder.blank(calibration, (128, 128), "cpu")


def test_patterns_taken_a_few_at_a_time_are_located_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MODEL.counts(random_deformations((2, 3)), 1e5)
    finder = SiteFinder.learn(made, "cpu")
    patterns = torch.from_numpy(made.counts.reshape(-1, 128, 128).astype(np.float32))
    together = finder.locate(patterns)
    monkeypatch.setattr(sites, "MAX_BYTES", 1)
    apart = finder.locate(patterns)
    torch.testing.assert_close(apart.G, together.G)
    torch.testing.assert_close(apart.centre, together.centre)
    assert torch.equal(apart.has_lattice, together.has_lattice)
