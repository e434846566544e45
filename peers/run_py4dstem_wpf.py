"""py4DSTEM's whole-pattern fit: a lattice of soft disks on smooth backgrounds, fitted to every
pattern by least squares.

The derivatives that its `SyntheticDiskLattice` gives are switched off; finite differences take
their place. In version 0.14.18 they hold the intensity of a disk twice, and the distance from the
middle of the pattern where that from the middle of the disk belongs, so fits end too early.

Settings: `sigmas_radii` (of the Gaussian backgrounds, over the disk radius), `max_nfev`
(evaluations of a fit).
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from adapter import Found, Scan, main

mpl.use("Agg")
import py4DSTEM
from py4DSTEM.process import wholepatternfit as wpf

# Of the disks, within which the direct beam is left out.
BEAM_RADII = 2.2
# px, by which beam and lattice may move from where they begin.
MAX_SHIFT = 3.0
MAX_CHANGE = 2.0


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    cube = py4DSTEM.DataCube(data=scan.counts)
    mean = scan.counts.mean((0, 1), dtype=np.float64)
    mean /= mean.mean()  # as the package scales it
    y, x = np.indices(scan.probe.shape)
    from_beam = np.hypot(x - scan.centre_px[0], y - scan.centre_px[1])
    row, column = scan.centre_px[::-1]  # the package calls x what runs along the first axis
    fit = wpf.WholePatternFit(
        cube,
        x0=(row, row - MAX_SHIFT, row + MAX_SHIFT),
        y0=(column, column - MAX_SHIFT, column + MAX_SHIFT),
        mask=(from_beam > BEAM_RADII * scan.radius_px).astype(float),
        use_jacobian=False,
    )
    fit.add_model(wpf.DCBackground(float(np.percentile(mean, 10))))
    near = float(mean[np.abs(from_beam - BEAM_RADII * scan.radius_px) < 1].mean())
    for number, radii in enumerate(settings.get("sigmas_radii", (2.0, 6.0))):
        sigma = radii * scan.radius_px
        background = wpf.GaussianBackground(
            fit, sigma=(sigma, 2.0, 200.0), intensity=near, name=f"background {number}"
        )
        fit.add_model(background)
    nodes = scan.nodes()[1:]
    at = np.rint(scan.centre_px + nodes @ scan.lattice_px.T).astype(int)
    (ux, vx), (uy, vy) = scan.lattice_px[::-1]
    fit.add_model(
        wpf.SyntheticDiskLattice(
            fit,
            **{
                name: (g, MAX_CHANGE)
                for name, g in zip(("ux", "uy", "vx", "vy"), (ux, uy, vx, vy), strict=True)
            },
            disk_radius=tuple(scan.radius_px * np.array([0.95, 0.7, 1.2])),
            disk_width=(2.0, 0.5, 4.0),
            u_max=0,
            v_max=0,
            intensity_0=float(np.median(mean[at[:, 1], at[:, 0]])),
            refine_radius=True,
            refine_width=True,
            include_indices=nodes.tolist(),
        )
    )
    fit.fit_to_mean_CBED(verbose=0)
    fit.accept_mean_CBED_fit()
    fit.fit_all_patterns(
        distributed=False, show_fit_metrics=False, max_nfev=settings.get("max_nfev", 15)
    )
    (lattice,) = fit.get_lattice_maps()
    vectors = {name: lattice.data[i] for i, name in enumerate(("ux", "uy", "vx", "vy"))}
    G = np.array([[vectors["uy"], vectors["vy"]], [vectors["ux"], vectors["vx"]]])
    G = np.moveaxis(G, (0, 1), (-2, -1))
    return Found(np.where(lattice.data[4, ..., None, None] > 0, G, np.nan))


if __name__ == "__main__":
    main("py4DSTEM", map_strain)
