"""py4DSTEM, as in its strain tutorial: probe kernel, disk detection, indexing and lattice fit are
its own.

Settings: `kernel` (mode), `radii` (of the sigmoid, over the disk radius), `sigma` (of the
gaussian), `max_peak_spacing` (over the disk radius), `weights_power`, `average`, and every argument
of `find_Bragg_disks` under its own name.

Where grains are turned against each other, each is indexed with lattice vectors turned as it is
(`turns`).

Its lattice fit multiplies each row by the intensity of the peak, which its users change by writing
other intensities: here those to the `weights_power`. With `average` every pattern is what its
`get_local_ave_dp` makes of the pattern and its neighbours, 3 x 3 with weights 1, 2, 4 over 16.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from adapter import Found, Scan, main, rotation

mpl.use("Agg")
import py4DSTEM
from py4DSTEM.process.strain import latticevectors

# Places in our G of what py4DSTEM, whose x runs along the first axis of a pattern, calls so.
VECTORS = {(0, 0): "g1y", (0, 1): "g2y", (1, 0): "g1x", (1, 1): "g2x"}
# Peaks at the nodes of a turned lattice against those at the nodes of the lattice as it is. Strain
# does not reach that.
MORE_PEAKS = 1.5
MIN_DEVIATIONS = 5.0  # of a count of peaks; the best of many turns reaches 4 by chance
MIN_GRAINS = 0.1  # of the patterns


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


def turns(vectors: py4DSTEM.BraggVectors, scan: Scan, spacing_px: float) -> np.ndarray:
    """How far (Ry, Rx) the lattice of each pattern is turned, in radians and in steps that move the
    outermost node by half of `spacing_px`: 0 in a single crystal.

    py4DSTEM indexes with the lattice vectors that its user chooses, and where a user sees grains,
    chooses anew in each. Here a scan has grains where more than `MIN_GRAINS` of its patterns show
    half as many peaks again at the nodes of a turned lattice, and more than chance brings: the
    median over all turns and `MIN_DEVIATIONS` of such a count. Then every pattern has the turn with
    the most peaks.
    """
    nodes = scan.nodes()[1:] @ scan.lattice_px.T
    step = spacing_px / 2 / np.linalg.norm(nodes, axis=1).max()
    most = int(np.pi / scan.symmetry / step)
    angles = step * np.array(sorted(range(-most, most + 1), key=abs))
    turned = nodes @ np.swapaxes(rotation(angles), -1, -2)  # (turns, nodes, 2)
    found = np.zeros(scan.counts.shape[:2])
    sure = np.zeros(found.shape, bool)
    for position in np.ndindex(found.shape):
        peaks = vectors.raw[position].data
        at = np.stack([peaks["qy"], peaks["qx"]], -1) - scan.centre_px
        apart = np.linalg.norm(turned[:, :, None] - at, axis=-1)
        caught = (apart.min(1, initial=np.inf) <= spacing_px).sum(1)
        best, chance = caught.max(), np.median(caught)
        found[position] = angles[caught.argmax()]
        sure[position] = best > MORE_PEAKS * caught[0] and (
            best > chance + MIN_DEVIATIONS * np.sqrt(chance)
        )
    return found if sure.mean() > MIN_GRAINS else np.zeros_like(found)


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    vectors = detect(scan, settings)
    for position in np.ndindex(scan.counts.shape[:2]):
        peaks = vectors.raw[position].data
        peaks["intensity"] = np.maximum(peaks["intensity"], 0) ** settings.get("weights_power", 1.0)
    x0, y0 = scan.centre_px[::-1]  # py4DSTEM calls x what runs along the first axis of a pattern
    vectors.calibration.set_origin((x0, y0))
    vectors.setcal(center=True)
    strainmap = py4DSTEM.StrainMap(vectors)
    strainmap.max_peak_spacing = settings.get("max_peak_spacing", 1.0) * scan.radius_px
    G = np.full((*scan.counts.shape[:2], 2, 2), np.nan)
    of_grain = turns(vectors, scan, strainmap.max_peak_spacing)
    for turn in np.unique(of_grain):
        lattice = rotation(turn) @ scan.lattice_px
        nodes = (scan.nodes() @ lattice.T)[:, ::-1]
        _, _, strainmap.braggdirections = latticevectors.index_bragg_directions(
            0, 0, *nodes.T, *lattice.T[:, ::-1]
        )
        grain = of_grain == turn
        strainmap.fit_basis_vectors(mask=grain)
        fitted = strainmap.g1g2_map
        grain &= fitted["mask"].data.astype(bool)
        for place, name in VECTORS.items():
            G[(*grain.nonzero(), *place)] = fitted[name].data[grain]
    # Its formula is for small turns: it takes the lattices of F R^-1, with R the turn of the grain.
    back = np.linalg.inv(scan.lattice_px) @ rotation(-of_grain) @ scan.lattice_px
    upright = np.where(np.isnan(G), scan.lattice_px, G @ back)
    for place, name in VECTORS.items():
        fitted[name].data[...] = upright[(..., *place)]
    fitted["mask"].data[...] = 1
    own = latticevectors.get_strain_from_reference_g1g2(fitted, *scan.lattice_px.T[:, ::-1])
    strain = np.stack([own[name].data for name in ("e_yy", "e_xx", "e_xy", "theta")], -1)
    strain[..., 3] += of_grain
    strain[np.isnan(G).any((-1, -2))] = np.nan
    return Found(G, strain)


if __name__ == "__main__":
    main("py4DSTEM", map_strain)
