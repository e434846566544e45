"""tempo4d's deep-learning disk detector: a YOLOv8 network on the autocorrelation of a pattern (A.
Genc, arXiv 2506.04477), with the weights of its wheel.

Its own step from pattern to the distances and angles of the spots nearest to the middle one is
called without its window. It shows how the distances of chosen spots change, and takes a spot for
the same one in all patterns by its rank in distance. Here the spots are indexed by the lattice that
they lie next to, and the lattice is fitted to them by least squares.

Settings: `image_size`, `normalize`, `conf`, `neighbours` under the package's own names, `pad` (over
the side of a pattern, the side to which its `pad_images` pads it before), `power` (of the counts,
before the package makes 8 bits of them), `beam_radii` (over the disk radius, within which the
direct beam is left out; 0 for none) and `tolerance` (of a spot's distance from its place, over the
shortest lattice vector).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# ultralytics writes its settings here, installs nothing and looks nothing up.
os.environ |= {
    "YOLO_CONFIG_DIR": str(Path.cwd()),
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "QT_QPA_PLATFORM": "offscreen",
}
import matplotlib as mpl
import numpy as np
import torch
from adapter import THREADS, Found, Scan, main, with_defaults

mpl.use("Agg")
try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError, OSError):
    # The index has its CUDA build alone, which does not load beside the CPU build of torch. One
    # function of it is called, and ultralytics has that itself.
    from ultralytics.utils.nms import TorchNMS

    sys.modules["torchvision"] = SimpleNamespace(ops=SimpleNamespace(nms=TorchNMS.nms))
from tempo4d import pad_images, qt14_corrected

torch.set_num_threads(THREADS)
BATCH = 16
DEFAULTS = {
    "image_size": 512,
    "normalize": 100,
    "conf": 0.01,
    "neighbours": 6,
    "pad": 2,
    "power": 1.0,
    "beam_radii": 1.8,
    "tolerance": 0.15,
}


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    settings = with_defaults(settings, DEFAULTS)
    y, x = np.indices(scan.probe.shape)
    outside = np.hypot(x - scan.centre_px[0], y - scan.centre_px[1]) >= (
        settings["beam_radii"] * scan.radius_px
    )
    patterns = scan.counts ** np.float32(settings["power"]) * outside.astype(np.float32)
    if settings["pad"] > 1:
        height, width = patterns.shape[2:]
        patterns = pad_images(patterns, (settings["pad"] * height, settings["pad"] * width))
    at = list(np.ndindex(patterns.shape[:2]))
    G = np.full((*patterns.shape[:2], 2, 2), np.nan)
    for begin in range(0, len(at), BATCH):
        batch = at[begin : begin + BATCH]
        for i, j, _, spacings, angles in qt14_corrected.RealTimePlotApp.process_slices_batch(
            None,  # the window
            batch,
            [patterns[position] for position in batch],
            settings["image_size"],
            0,
            settings["normalize"],
            1.0,
            settings["neighbours"],
            settings["conf"],
            qt14_corrected.yolo_model,
        ):
            G[i, j] = fit(np.array(spacings), np.array(angles), scan.lattice_px, settings)
    return Found(G)


def fit(
    spacings: np.ndarray, angles: np.ndarray, G0: np.ndarray, settings: dict[str, Any]
) -> np.ndarray:
    """The lattice (2, 2) through spots at the distances 1 / `spacings` (px), found next to the
    nominal one, G0; NaN without two independent spots. The package marks none by a spacing of 0.
    """
    found = spacings > 0
    distance = 1 / spacings[found]
    spots = distance * np.array([np.cos(angles[found]), np.sin(angles[found])])  # (2, n)
    hk = np.rint(np.linalg.solve(G0, spots))
    shortest = np.linalg.norm(G0 @ [[1, 0, 1, 1], [0, 1, 1, -1]], axis=0).min()
    near = np.linalg.norm(spots - G0 @ hk, axis=0) < settings["tolerance"] * shortest
    near &= hk.any(0)
    if near.sum() < 2 or np.linalg.matrix_rank(hk[:, near]) < 2:
        return np.full((2, 2), np.nan)
    return np.linalg.lstsq(hk[:, near].T, spots[:, near].T, rcond=None)[0].T


if __name__ == "__main__":
    main("tempo4d", map_strain)
