"""quantEM: template from the vacuum probe, batched disk detection, lattice fit and strain map are
its own.

Settings: `subtract_mean` (a template of zero sum), `max_peak_shift` (over the disk radius), and
every argument of `detect_disks` under its own name.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from adapter import THREADS, Found, Scan, main
from quantem.core.datastructures import Dataset4dstem
from quantem.diffraction.bragg_vectors import BraggVectors

torch.set_num_threads(THREADS)


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    own = {
        name: value
        for name, value in settings.items()
        if name not in ("subtract_mean", "max_peak_shift")
    }
    vectors = BraggVectors.from_dataset(Dataset4dstem.from_array(scan.counts))
    vectors.make_template_from_probe(scan.probe, subtract_mean=settings.get("subtract_mean", False))
    chosen = {
        "min_spacing": scan.radius_px,
        "edge_boundary": int(scan.radius_px),
        "max_num_peaks": 70,
    }
    vectors.detect_disks(progressbar=False, **chosen | own)
    g1, g2 = scan.lattice_px.T[:, ::-1]  # (row, col)
    vectors.choose_basis_vectors(origin=scan.centre_px[::-1], g1=g1, g2=g2, plot=False)
    # The nodes that lie on the detector, in place of those picked by eye.
    vectors.candidates_rc = (scan.centre_px + scan.nodes() @ scan.lattice_px.T)[:, ::-1]
    vectors.candidates_intensity = np.ones(len(vectors.candidates_rc))
    vectors.index_peaks(plot=False)
    vectors.fit_lattice(
        max_peak_shift=settings.get("max_peak_shift", 1.0) * scan.radius_px,
        progressbar=False,
        plot=False,
    )
    G = np.stack([vectors.g1_array[..., ::-1], vectors.g2_array[..., ::-1]], -1)
    with (
        warnings.catch_warnings()
    ):  # it says that detector and scan are not turned against each other: they are not
        warnings.simplefilter("ignore", UserWarning)
        own_map = vectors.calculate_strain_map(g1_ref=g1, g2_ref=g2)
    strain = np.stack(
        [own_map.e_cc.array, own_map.e_rr.array, own_map.e_rc.array, -own_map.phi.array], -1
    )
    return Found(G, strain)


if __name__ == "__main__":
    main("quantem", map_strain)
