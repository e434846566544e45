"""py4DSTEM, as in its strain tutorial: probe kernel, disk detection, indexing and lattice fit are
its own.

Settings: `kernel` (mode), `radii` (of the sigmoid, over the disk radius), `sigma` (of the
gaussian), `max_peak_spacing` (over the disk radius), `weights_power`, `average`, and every argument
of `find_Bragg_disks` under its own name.

Its lattice fit multiplies each row by the intensity of the peak, which its users change by writing
other intensities: here those to the `weights_power`. With `average` every pattern is what its
`get_local_ave_dp` makes of the pattern and its neighbours, 3 x 3 with weights 1, 2, 4 over 16.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from adapter import Found, Scan, main

mpl.use("Agg")
import py4DSTEM
from py4DSTEM.process.strain import latticevectors


def detect(scan: Scan, settings: dict[str, Any]) -> py4DSTEM.BraggVectors:
    """Disk positions of every pattern."""
    cube = py4DSTEM.DataCube(data=scan.counts)
    if settings.get("average", False):
        positions = np.ndindex(scan.counts.shape[:2])
        averaged = np.array([cube.get_local_ave_dp(*position) for position in positions])
        cube = py4DSTEM.DataCube(data=averaged.reshape(scan.counts.shape).astype(np.float32))
    probe = py4DSTEM.Probe(scan.probe)
    radius, *origin = cube.get_probe_size(scan.probe, plot=False)
    options: dict[str, Any] = {
        "flat": {},
        "gaussian": {"sigma": settings.get("sigma", 3.0), "bilinear": False},
        "sigmoid": {
            "radii": tuple(radius * r for r in settings.get("radii", (0.0, 4.0))),
            "bilinear": False,
        },
    }
    mode = settings.get("kernel", "sigmoid")
    kernel = probe.get_kernel(mode=mode, origin=origin, **options[mode])
    own = {
        name: value
        for name, value in settings.items()
        if name not in ("kernel", "radii", "sigma", "max_peak_spacing", "weights_power", "average")
    }
    # Its defaults for spacing, edge and least intensity leave one peak of a pattern of 128 px.
    chosen = {
        "sigma_cc": 0,
        "minRelativeIntensity": 0,
        "minPeakSpacing": radius,
        "edgeBoundary": int(radius),
        "maxNumPeaks": 70,
    }
    return cube.find_Bragg_disks(template=kernel, **chosen | own)


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    vectors = detect(scan, settings)
    for position in np.ndindex(scan.counts.shape[:2]):
        peaks = vectors.raw[position].data
        peaks["intensity"] = np.maximum(peaks["intensity"], 0) ** settings.get("weights_power", 1.0)
    x0, y0 = scan.centre_px[::-1]  # py4DSTEM calls x what runs along the first axis of a pattern
    vectors.calibration.set_origin((x0, y0))
    vectors.setcal(center=True)
    strainmap = py4DSTEM.StrainMap(vectors)
    g1, g2 = scan.lattice_px.T[:, ::-1]
    nodes = (scan.nodes() @ scan.lattice_px.T)[:, ::-1]
    _, _, strainmap.braggdirections = latticevectors.index_bragg_directions(0, 0, *nodes.T, g1, g2)
    strainmap.max_peak_spacing = settings.get("max_peak_spacing", 1.0) * scan.radius_px
    strainmap.fit_basis_vectors()
    fitted = strainmap.g1g2_map
    lost = ~fitted["mask"].data.astype(bool)
    G = np.moveaxis(
        np.array([[fitted[f"g{i}{c}"].data for i in (1, 2)] for c in "yx"]), (0, 1), (-2, -1)
    )
    own = latticevectors.get_strain_from_reference_g1g2(fitted, g1, g2)
    strain = np.stack([own["e_yy"].data, own["e_xx"].data, own["e_xy"].data, own["theta"].data], -1)
    return Found(
        np.where(lost[..., None, None], np.nan, G), np.where(lost[..., None], np.nan, strain)
    )


if __name__ == "__main__":
    main("py4DSTEM", map_strain)
