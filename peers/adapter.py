"""What the adapters share: the counts file in, the map file out, and the way from lattice vectors
to F. h5py and numpy alone.

Vectors and matrices have their components in (x, y) order, x along the last axis of a pattern;
pixel centres are integers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import h5py
import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


@dataclass(frozen=True)
class Scan:
    """What a method may know."""

    counts: np.ndarray  # (Ry, Rx, Qy, Qx), float32
    probe: np.ndarray  # (Qy, Qx), the vacuum probe
    centre_px: np.ndarray  # (2,), nominal direct beam
    lattice_px: np.ndarray  # (2, 2), nominal reciprocal lattice vectors as columns
    radius_px: float  # of the disks
    symmetry: int  # of the lattice's rotation

    def oriented(self) -> Scan:
        """The same with the lattice turned to where the sum of all patterns shows it, as a user
        would see by eye.
        """
        total = self.counts.sum((0, 1), dtype=np.float64)
        y, x = np.indices(total.shape) - np.reshape(total.shape, (2, 1, 1)) // 2
        disk = np.fft.rfft2(np.fft.ifftshift(np.hypot(x, y) <= self.radius_px))
        disks = np.fft.irfft2(np.fft.rfft2(total) * disk, s=total.shape)
        offsets = self.nodes()[1:] @ self.lattice_px.T
        turns = np.radians(np.arange(-180 / self.symmetry, 180 / self.symmetry, 0.25))
        at = np.rint(self.centre_px + offsets @ np.swapaxes(rotation(turns), -1, -2)).astype(
            int
        )  # (turns, nodes, 2)
        on = ((at >= 0) & (at < total.shape[::-1])).all(-1)
        seen = disks[at[..., 1] * on, at[..., 0] * on]
        best = turns[np.argmax((seen * on).sum(-1) / on.sum(-1))]
        return replace(self, lattice_px=rotation(best) @ self.lattice_px)

    def nodes(self) -> np.ndarray:
        """(h, k) of the nominal nodes whose disks lie on the detector, (n, 2); the direct beam
        first.
        """
        span = np.arange(-12, 13)
        hk = np.stack(np.meshgrid(span, span), -1).reshape(-1, 2)
        at = self.centre_px + hk @ self.lattice_px.T
        edge = np.array(self.probe.shape[::-1]) - 1 - self.radius_px
        hk = hk[((at >= self.radius_px) & (at <= edge)).all(1)]
        return hk[np.argsort(np.linalg.norm(hk @ self.lattice_px.T, axis=1), kind="stable")]


@dataclass(frozen=True)
class Found:
    """What a peer found. Lattice vectors are the columns of G (Ry, Rx, 2, 2), in pixels, NaN where
    there are none.
    """

    G: np.ndarray
    strain: np.ndarray | None = (
        # (Ry, Rx, 4): exx, eyy, exy, theta by the peer's own formula, against the nominal lattice
        None
    )


def main(
    package: str, method: Callable[[Scan, dict[str, Any]], Found], warm_up: bool = False
) -> None:
    """Run `method` on the counts file of the command line and write the map.

    The time told is that of the mapping, without imports and files; with `warm_up` one row is
    mapped before, for what compiles itself.
    """
    parser = argparse.ArgumentParser()
    for name in ("--counts", "--map", "--settings"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    scan, settings = read(given.counts), json.loads(given.settings)
    if warm_up:
        method(replace(scan, counts=scan.counts[:1]), settings)
    begun = time.perf_counter()
    found = method(scan.oriented(), settings)
    seconds = time.perf_counter() - begun
    versions = {"python": platform.python_version()} | {
        name: metadata.version(name) for name in ("numpy", package)
    }
    with h5py.File(given.map, "w") as file:
        file["F"] = deformation(found.G, scan.lattice_px)
        if found.strain is not None:
            file["own_strain"] = np.asarray(found.strain, np.float64)
        file.attrs.update({"seconds": seconds, "device": "cpu", "versions": json.dumps(versions)})


def read(path: str) -> Scan:
    with h5py.File(path) as file:
        pixel = float(file.attrs["pixel_size_inv_A"])
        radius = (
            float(file.attrs["semiangle_mrad"])
            * 1e-3
            / wavelength_A(float(file.attrs["energy_keV"]))
            / pixel
        )
        lattice = file["lattice_inv_A"][...] / pixel
        counts, probe, centre = (
            file["counts"][...].astype(np.float32),
            file["probe"][...],
            np.array(file.attrs["centre_px"], float),
        )
        return Scan(counts, probe, centre, lattice, radius, int(file.attrs["rotational_symmetry"]))


def with_defaults(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """All settings of a program; ValueError where one is none of it."""
    if unknown := set(settings) - set(defaults):
        raise ValueError(f"unknown settings {sorted(unknown)}; expected some of {sorted(defaults)}")
    return defaults | settings


def wavelength_A(energy_keV: float) -> float:
    return 12.398419843 / np.sqrt(energy_keV * (energy_keV + 2 * 510.99895))


def rotation(angle: np.ndarray) -> np.ndarray:
    """Matrices (..., 2, 2) that turn x towards y."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def deformation(G: np.ndarray, G0: np.ndarray) -> np.ndarray:
    """F = (G G0^-1)^-T, from g' = F^-T g; NaN where that is no deformation."""
    change = np.asarray(G, np.float64) @ np.linalg.inv(G0)
    good = np.isfinite(change).all((-1, -2)) & (np.linalg.det(np.nan_to_num(change)) > 0.01)
    F = np.full(change.shape, np.nan)
    F[good] = np.swapaxes(np.linalg.inv(change[good]), -1, -2)
    return F
