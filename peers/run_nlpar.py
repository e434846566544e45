"""Patterns averaged with those neighbours that are alike, by pyebsdindex's NLPAR (P. T. Brewick, S.
I. Wright and D. J. Rowenhorst, Ultramicroscopy 200, 50 (2019)), as NLSTEM does for 4D-STEM.

A stage before a method: reads a counts file and writes another one, in float32. Settings: `lam` and
`radius` (in steps of the scan), which the package calls lam and searchradius; `dthresh`; and
`stem_scale`, its square root of the counts, which makes the noise of all pixels alike. The direct
beam, which tells nothing of strain and holds most of the counts, is left out where patterns are
compared, and averaged with the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil

import adapter
import h5py
import numba
import numpy as np
from pyebsdindex.nlpar_cpu import NLPAR

DEFAULTS = {"lam": 0.7, "radius": 3, "dthresh": 0.0, "stem_scale": False}
# Of the disks, beyond which there is nothing of the direct beam.
CLEAR_RADII = 1.5


def average(scan: adapter.Scan, settings: dict) -> np.ndarray:
    """Patterns (Ry, Rx, Qy, Qx), float32."""
    given = adapter.with_defaults(settings, DEFAULTS)
    rows, columns = (np.int64(n) for n in scan.counts.shape[:2])
    patterns = scan.counts.reshape(int(rows * columns), -1)
    lowest = patterns.min() if given["stem_scale"] else np.float32(0)
    if given["stem_scale"]:
        patterns = np.sqrt(patterns - lowest)
    y, x = np.indices(scan.probe.shape)
    away = np.hypot(x - scan.centre_px[0], y - scan.centre_px[1]) > CLEAR_RADII * scan.radius_px
    compared = np.flatnonzero(away).astype(np.int64)
    whole = [np.array([0, n], np.uint64) for n in (rows, columns)]
    sigma = NLPAR.sigma_numba(patterns, 1, rows, columns, *whole, compared, False)[0]
    radius = min(int(given["radius"]), int(min(rows, columns) - 1) // 2)
    out = NLPAR.nlpar_nb(
        patterns,
        np.float32(given["lam"]),
        np.int64(radius),
        np.float32(given["dthresh"]),
        sigma,
        rows,
        columns,
        calclim=np.array([0, 0, columns, rows], np.int64),
        indices_in=compared,
        saturation_protect=False,
    )
    if given["stem_scale"]:
        out = np.square(out) + lowest
    return out.reshape(scan.counts.shape)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--counts", "--out", "--settings"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    numba.set_num_threads(min(adapter.THREADS, numba.config.NUMBA_NUM_THREADS))
    averaged = average(adapter.read(given.counts), json.loads(given.settings))
    shutil.copy(given.counts, given.out)
    with h5py.File(given.out, "r+") as file:
        del file["counts"]
        file["counts"] = averaged


if __name__ == "__main__":
    main()
