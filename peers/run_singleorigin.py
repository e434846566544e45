"""SingleOrigin's cepstral (EWPC) strain: peaks of the Fourier transform of the logarithm of a
pattern, and the lattice through them.

Its user finds the peaks of the mean cepstrum by eye and clicks on two. Here the nodes of the
nominal lattice take their place. Everything after that is the package's own.

Settings: `units_an_electron` (what the counts are multiplied with: the package takes the logarithm
of 0.1 and them), `r_max` (over the length of the longer lattice vector; the nodes within are
measured) and `window_size` (px, in which a peak is looked for; from 7, the package's own, windows
of neighbouring peaks overlap).
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import psutil
from adapter import THREADS, Found, Scan, main, with_defaults

mpl.use("Agg")
from matplotlib import pyplot as plt
from SingleOrigin import ReciprocalLattice

DEFAULTS = {"units_an_electron": 1.0, "r_max": 1.2, "window_size": 3}

# The package starts a process for every core of the machine.
psutil.cpu_count = lambda logical=True: THREADS


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    settings = with_defaults(settings, DEFAULTS)
    lattice = ReciprocalLattice(
        scan.counts * np.float32(settings["units_an_electron"]),
        plot_mean_image=False,
        calc_ewpc=True,
    )
    side = len(lattice.ewpc_mean)
    nominal = side * np.linalg.inv(scan.lattice_px)  # vectors (x, y) as rows
    r_max = settings["r_max"] * np.linalg.norm(nominal, axis=1).max()
    span = np.arange(-8, 9)
    nodes = np.stack(np.meshgrid(span, span), -1).reshape(-1, 2) @ nominal
    distances = np.linalg.norm(nodes, axis=1)
    lattice.basis_picks = lattice.origin + nominal
    lattice.ewpc_peaks_mean = lattice.origin + nodes[(distances > 0) & (distances < r_max)]
    lattice.ewpc_vmax = lattice.ewpc_mean.max()  # of its picture alone
    lattice.initalize_ewpc_analysis(1, 1, r_max=r_max)
    plt.close("all")
    lattice.get_ewpc_basis(window_size=settings["window_size"])
    G = np.swapaxes(lattice.basis_recip_px, -1, -2)
    if min(scan.counts.shape[:2]) == 1:  # where its strain loses an axis
        return Found(G)
    lattice.get_strain(ref=nominal)
    maps = lattice.strain_maps
    strain = [maps["exx"] / 100, maps["eyy"] / 100, -maps["exy"] / 100, np.radians(maps["theta"])]
    return Found(G, np.stack(strain, -1))


if __name__ == "__main__":
    main("SingleOrigin", map_strain)
