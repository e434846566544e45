"""A quantity given in another unit is refused at the reader's door, and the slip is named."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import Model

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io import slips
from ccstae.io.counts import read_counts, write_counts

MODEL = Model()
GOOD = MODEL.calibration
SQUARE, WIDE = (128, 128), (128, 200)
LATTICE = GOOD.lattice_inv_A

# What is changed, the detector, and what the message must say.
CASES: dict[str, tuple[dict[str, Any], tuple[int, int], str]] = {
    "semiangle in rad": (
        {"semiangle_mrad": 0.003},
        SQUARE,
        r"radius 0\.0055.*semiangle_mrad 0\.003, .*looks like semiangle_mrad given in rad$",
    ),
    "energy in eV": (
        {"energy_keV": 80000.0},
        SQUARE,
        "energy_keV is 80000; expected 10 to 1000 keV; looks like energy_keV given in eV",
    ),
    "energy in MeV": ({"energy_keV": 0.08}, SQUARE, "looks like energy_keV given in MeV"),
    "pixel in 1/nm": (
        {"pixel_size_inv_A": 0.13},
        SQUARE,
        "expected a radius of at least 1 px; looks like pixel_size_inv_A given in 1/nm$",
    ),
    "pixel a tenth": (
        {"pixel_size_inv_A": 0.0013},
        SQUARE,
        "on the detector: check the calibration; looks like pixel_size_inv_A .*divided by 10",
    ),
    "pixel in mrad": (
        {"pixel_size_inv_A": 0.013e3 * geometry.wavelength_A(80)},
        SQUARE,
        "looks like pixel_size_inv_A given in mrad",
    ),
    "lattice with 2 pi": (
        {"lattice_inv_A": 2 * math.pi * LATTICE},
        SQUARE,
        "looks like lattice_inv_A given in 1/Angstrom with 2 pi",
    ),
    "lattice in 1/nm": ({"lattice_inv_A": 10 * LATTICE}, SQUARE, "lattice_inv_A given .*in 1/nm"),
    "lattice in real space": (
        {"lattice_inv_A": geometry.reciprocal(LATTICE)},
        SQUARE,
        "lattice_inv_A given .*in real space",
    ),
    "no ring on the detector": (
        {"pixel_size_inv_A": 0.013 / 3.4, "semiangle_mrad": 1.0},
        SQUARE,
        "disks in two directions whole on the detector",
    ),
    "one direction on the detector": (
        {"lattice_inv_A": np.diag([0.37, 1.5]), "rotational_symmetry": 2},
        SQUARE,
        "disks in two directions whole on the detector",
    ),
    "centre as (row, column)": (
        {"centre_px": (64.0, 150.0)},
        WIDE,
        r"centre_px is \(64.0, 150.0\).*looks like centre_px given in \(row, column\)",
    ),
    "step in m": ({"step_A": 2e-9}, SQUARE, "step_A is 2e-09.*looks like step_A given in m$"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_slip_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    changed, detector, expected = CASES[case]
    path = tmp_path / "counts.h5"
    rows = np.ones((1, 1, *detector), np.uint16)
    write_counts(path, rows, (1, 1, *detector), replace(GOOD, **changed), np.ones(detector))
    with pytest.raises(InputError, match=expected) as refused:
        read_counts(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_good_calibration_has_no_fault() -> None:
    assert slips.fault(GOOD, SQUARE) is None


def test_what_no_slip_explains_names_none() -> None:
    """Two slips at once: undoing one leaves the other."""
    both = replace(GOOD, semiangle_mrad=3e-3, lattice_inv_A=100 * LATTICE)
    assert slips.fault(both, SQUARE) is not None
    assert slips.looks_like(both, SQUARE) == ""


@pytest.mark.parametrize(("mrad", "accepted"), [(3.0 / 5.6, False), (3.0 / 5.4, True)])
def test_a_disk_has_a_radius_of_a_pixel_at_least(mrad: float, accepted: bool) -> None:
    """Disks of 3 mrad have a radius of 5.53 px."""
    assert (slips.fault(replace(GOOD, semiangle_mrad=mrad), SQUARE) is None) == accepted


def test_the_nearest_node_is_found_in_a_basis_that_is_not_reduced() -> None:
    skew = LATTICE @ np.array([[1, 3], [0, 1]])
    assert slips.nearest_px(replace(GOOD, lattice_inv_A=skew)) == pytest.approx(
        slips.nearest_px(GOOD)
    )


def test_units_stand_in_the_message() -> None:
    """A number without the name of its quantity helps nobody."""
    said = slips.fault(replace(GOOD, semiangle_mrad=0.003), SQUARE)
    assert said is not None
    for name in ("semiangle_mrad", "energy_keV", "pixel_size_inv_A", "lattice_inv_A"):
        assert re.search(rf"{name} \d|{name} 0|/{name} ", said)
