"""Counts files and scans as hypothesis draws them: some good, some beside what any detector
records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from ccstae import geometry
from ccstae.config.methods import settings as default_settings
from ccstae.errors import InputError
from ccstae.io import slips
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.io.counts import Counts
from ccstae.methods import base

SLIPS = (1e-300, 1e-10, 1e-3, 0.1, 1 / (2 * np.pi), 2 * np.pi, 10, 1e3, 1e10, 1e300)
WRONG = ("attribute", "missing", "lattice", "probe", "counts", "dtype")
SLIPPED = ("energy_keV", "semiangle_mrad", "pixel_size_inv_A", "step_A", "lattice_inv_A")
ODD: tuple[Any, ...] = (0, -1.0, np.nan, np.inf, 1e-300, 1e300, "3", b"", [1, 2, 3], 2**62)


@st.composite
def detectors(draw: st.DrawFn) -> tuple[int, int]:
    """(Qy, Qx), square or not."""
    side = draw(st.sampled_from([12, 17, 24, 32, 32, 48]))
    return side, draw(st.sampled_from([side, side, draw(st.integers(12, 64))]))


@st.composite
def calibrations(draw: st.DrawFn, shape: tuple[int, int]) -> Calibration:
    """A good calibration, more often than not, for a detector of `shape`."""
    energy = draw(st.sampled_from([60.0, 80.0, 200.0, 300.0]))
    radius_px = draw(st.sampled_from([0.9, 1.1, 1.5, 2, 2.7, 3, 4]))
    nearest_px = draw(st.sampled_from([1.9, 2.1, 2.5, 3, 3, 4, 5])) * radius_px
    pixel = draw(st.floats(0.003, 0.1))
    gamma = np.deg2rad(draw(st.sampled_from([60.0, 90.0, 75.0, 119.0])))
    second = draw(st.floats(1, 2)) if gamma != np.deg2rad(60) else 1.0
    lattice = np.array([[1, second * np.cos(gamma)], [0, second * np.sin(gamma)]])
    centre = [
        draw(st.sampled_from([size / 2, draw(st.floats(0, size - 1))])) for size in shape[::-1]
    ]
    return Calibration(
        energy_keV=energy,
        semiangle_mrad=radius_px * pixel * geometry.wavelength_A(energy) * 1e3,
        pixel_size_inv_A=pixel,
        step_A=draw(st.floats(0.5, 100)),
        centre_px=(centre[0], centre[1]),
        lattice_inv_A=nearest_px * pixel * lattice,
        rotational_symmetry=draw(st.sampled_from([2, 4, 6])),
    )


@st.composite
def scans(draw: st.DrawFn) -> Counts:
    """A small scan whose calibration passes the reader's door."""
    shape = draw(detectors())
    calibration = draw(calibrations(shape))
    assume(slips.fault(calibration, shape) is None)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scan = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    radius = disk_radius_px(calibration)
    centre = np.array(calibration.centre_px)
    beam = disk(shape, centre, radius)
    counts = draw(patterns(calibration, (*scan, *shape), beam, rng))
    kind = draw(st.sampled_from(["beam", "beam", "elsewhere", "pixel", "flat", "noise"]))
    if kind == "beam":
        probe = beam
    elif kind == "elsewhere":
        probe = disk(shape, rng.uniform(0, np.array(shape[::-1]) - 1), radius)
    elif kind == "pixel":
        probe = np.zeros(shape)
        probe[tuple(rng.integers(shape))] = 1
    else:
        probe = np.ones(shape) if kind == "flat" else rng.random(shape)
    probe = (probe / probe.sum()).astype(np.float32)
    return Counts(counts, probe, calibration, Path("drawn.h5"), np.ones(shape, bool))


@st.composite
def patterns(
    draw: st.DrawFn,
    calibration: Calibration,
    shape: tuple[int, int, int, int],
    beam: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Unsigned counts of a lattice, of vacuum, or of nothing that a specimen makes."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "u4", "u8"])))
    most = min(np.iinfo(dtype).max, 2**32 - 1)
    kind = draw(st.sampled_from(["lattice"] * 4 + ["vacuum", "empty", "full", "noise", "hot"]))
    if kind == "empty":
        return np.zeros(shape, dtype)
    if kind == "full":
        return np.full(shape, most, dtype)
    if kind == "noise":
        return rng.integers(0, most, shape, dtype, endpoint=True)
    mean = beam.copy()
    if kind == "lattice":
        turn = geometry.rotation_matrix(rng.uniform(0, np.pi))
        g = turn @ calibration.lattice_inv_A / calibration.pixel_size_inv_A
        radius = disk_radius_px(calibration)
        for hk in geometry.lattice_nodes(g, max(shape), 4)[1:]:
            mean += 0.05 * disk(shape[2:], np.array(calibration.centre_px) + g @ hk, radius)
    electrons = draw(st.sampled_from([1.0, 1e2, 1e4, 1e6]))
    background = draw(st.sampled_from([0, 1e-3, 1])) * electrons / mean.size
    counts = rng.poisson(electrons * mean + background, shape).clip(0, most).astype(dtype)
    if kind == "hot":
        counts[..., *rng.integers(shape[2:])] = most
    return counts


def disk(shape: tuple[int, ...], at: np.ndarray, radius: float) -> np.ndarray:
    """A disk of about unit sum where it lies whole on the detector, with an edge of one pixel."""
    y, x = np.indices(shape)
    inside = np.clip(radius + 0.5 - np.hypot(x - at[0], y - at[1]), 0, 1)
    return inside / (np.pi * radius**2)


def answers(method: str, counts: Counts) -> bool:
    """Whether a method answers a scan, in the form that `base.Answer` has, or refuses it with an
    InputError; any other exception passes.
    """
    try:
        answer = base.load(method).map_strain(counts, default_settings(method)(), "cpu")
    except InputError:
        return False
    base.check_answer(answer, counts.counts.shape[:2], method)
    return True


@st.composite
def files(draw: st.DrawFn, path: Path) -> Path:
    """A counts file, good or with something in it that is wrong."""
    shape = draw(detectors())
    calibration = draw(calibrations(shape))
    # One thing is wrong in most files, and in the others the calibration at most.
    wrong = draw(st.sampled_from([None, None, None, "slip", *WRONG]))
    slipped = draw(st.sampled_from(SLIPPED)) if wrong == "slip" else None
    factor = draw(st.sampled_from(SLIPS))
    attributes: dict[str, Any] = {
        name: getattr(calibration, name) * (factor if name == slipped else 1)
        for name in ("energy_keV", "semiangle_mrad", "pixel_size_inv_A", "step_A")
    }
    attributes["centre_px"] = calibration.centre_px
    attributes["rotational_symmetry"] = calibration.rotational_symmetry
    lattice: Any = calibration.lattice_inv_A * (factor if slipped == "lattice_inv_A" else 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scan = draw(st.sampled_from([(1, 1), (2, 3)]))
    counts: Any = rng.integers(0, 200, (*scan, *shape)).astype(
        draw(
            st.sampled_from(
                ["u1", "u2", "u4", "u8", ">u2"] if wrong != "dtype" else ["i4", "f4", "c8"]
            )
        )
    )
    probe: Any = rng.random(shape).astype(
        draw(st.sampled_from(["f4", "f8", "f2"] if wrong != "dtype" else ["f4", "u2", "c8"]))
    )
    if wrong == "attribute":
        attributes[draw(st.sampled_from(sorted(attributes)))] = draw(st.sampled_from(ODD))
    elif wrong == "missing":
        del attributes[draw(st.sampled_from(sorted(attributes)))]
    elif wrong == "lattice":
        numbers = draw(st.lists(st.floats(width=64), min_size=4, max_size=4))
        lattice = np.array(numbers).reshape(draw(st.sampled_from([(2, 2), (4,), (1, 4)])))
    elif wrong == "probe":
        factor = draw(st.sampled_from([0, -1, np.nan, np.inf, 1e30, 1e300]))
        with np.errstate(all="ignore"):
            probe = probe.astype(float) * factor
        probe = draw(st.sampled_from([probe, probe[:-1], probe[None]]))
    elif wrong == "counts":
        counts = draw(st.sampled_from([counts[0], counts[:0], counts[..., :1], None]))
    with h5py.File(path, "w") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        file["lattice_inv_A"], file["probe"] = lattice, probe
        if counts is None:  # claimed, never written
            file.create_dataset("counts", (1 << 10, 1 << 10, *shape), "u4", chunks=(1, 1, *shape))
        else:
            file["counts"] = counts
    return path
