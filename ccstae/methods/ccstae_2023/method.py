"""CC-ST-AE as published in 2023: the reproduction row.

The package's docstring says what is the authors' and what is found from the counts.
"""

from __future__ import annotations

import numpy as np
import torch

from ccstae import geometry
from ccstae.config.methods import Ccstae2023Settings
from ccstae.io.store import Counts
from ccstae.methods.base import Answer
from ccstae.methods.ccstae_2023 import masks, train

_BARE = 0.3  # a picture whose spots are this faint beside the brightest picture's is background


def map_strain(counts: Counts, settings: Ccstae2023Settings, device: str) -> Answer:
    """Train on the scan and map it: F = (scale A)^-T of every pattern against the nominal lattice;
    NaN where no pattern holds a lattice.

    A = S R is the affine from the dictionary to the pattern, `scale` the dictionary's lattice over
    the nominal one. A dictionary of one entry tells nothing apart and gives no label.
    """
    scan, shape = counts.counts.shape[:2], counts.counts.shape[2:]
    found = masks.find(counts, train.side(settings), device)
    if not found.found.any():
        return Answer(np.full((*scan, 2, 2), np.nan))
    trained = train.train(
        counts.counts.reshape(-1, *shape), found, counts.calibration.rotational_symmetry, settings
    )
    F = geometry.inverse_transpose(found.scale * trained.A.double().cpu().numpy())
    label = (
        materials(trained.pictures, found)[trained.entry]
        .cpu()
        .numpy()
        .astype(np.int8)
        .reshape(scan)
    )
    return Answer(
        F.reshape(*scan, 2, 2),
        label=label if settings.entries > 1 else None,
        centre_px=trained.origin.double().cpu().numpy().reshape(*scan, 2),
        dictionary=on_detector(trained.pictures, shape, counts.calibration.centre_px).cpu().numpy(),
        found={
            "scale": found.scale,
            "spots_px": found.spots.tolist(),
            "spot_counts_per_px": found.unit,
        },
    )


def on_detector(
    pictures: torch.Tensor, shape: tuple[int, ...], centre_px: tuple[float, float]
) -> torch.Tensor:
    """Pictures (E, D, D) cut or filled with zeros to the detector's `shape` (H, W), pixel D // 2 at
    the pixel nearest to the nominal direct beam (x, y).
    """
    height, width = shape
    side = pictures.shape[-1]
    left, top = round(centre_px[0]) - side // 2, round(centre_px[1]) - side // 2
    # Negative padding cuts.
    return torch.nn.functional.pad(pictures, (left, width - side - left, top, height - side - top))


def materials(pictures: torch.Tensor, found: masks.Masks) -> torch.Tensor:
    """Label (E,) of each picture (E, D, D): 0 background, where the spots hold little; else 1, 2,
    ... in order.
    """
    axis = (
        torch.arange(pictures.shape[-1], device=pictures.device, dtype=pictures.dtype)
        - pictures.shape[-1] // 2
    )
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    away = (places[:, :, None] - found.spots).norm(dim=-1).amin(-1)
    radius = places.norm(dim=-1)
    reach = float(found.spots.norm(dim=1).mean())
    between = (away > 2 * found.radius) & ((radius - reach).abs() < found.radius)
    inside = away < 0.7 * found.radius
    brightness = pictures[:, inside].mean(1) - (
        pictures[:, between].mean(1) if between.any() else 0
    )
    sample = brightness > _BARE * brightness.max()
    return torch.where(sample, sample.cumsum(0), 0)
