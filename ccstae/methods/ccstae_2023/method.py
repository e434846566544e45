"""CC-ST-AE as published in 2023: the reproduction row.

The docstring of `masks` says what is found from the counts in place of the authors' own choices.
"""

from __future__ import annotations

import numpy as np
import torch

from ccstae import geometry
from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.ccstae_2023.masks import Masks, find_masks
from ccstae.methods.ccstae_2023.settings import Ccstae2023Settings
from ccstae.methods.ccstae_2023.train import picture_side, train_on_scan

# A picture whose spots are fainter, beside those of the brightest picture, is background.
MIN_RELATIVE_BRIGHTNESS = 0.3


def map_strain(counts: Counts, settings: Ccstae2023Settings, device: str) -> Answer:
    """Train on the scan and map it.

    F = (scale A)^-T of every pattern against the nominal lattice. A = S R is the affine from the
    dictionary to the pattern, and `scale` that of the dictionary's lattice over the nominal one.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx) and calibration.
        settings: network, losses and training.
        device: "cpu" or "cuda".

    Returns:
        F, direct beams and dictionary; F is NaN where no pattern of the scan holds a lattice. A
        dictionary of one entry tells nothing apart, and then there is no label.

    Raises:
        InputError: where the pools and the binning leave nothing of a pattern.
    """
    scan = counts.scan
    masks = find_masks(counts, picture_side(settings), device)
    if not masks.has_lattice.any():
        return Answer(np.full((*scan, 2, 2), np.nan))
    fitted = train_on_scan(counts, masks, settings)
    F = geometry.inverse_transpose(masks.scale * fitted.A.double().cpu().numpy())
    label = materials(fitted.pictures, masks)[fitted.entry].cpu().numpy().astype(np.int8)
    pictures = on_detector(fitted.pictures, counts.detector, counts.calibration.centre_px)
    return Answer(
        F.reshape(*scan, 2, 2),
        label=label.reshape(scan) if settings.entries > 1 else None,
        centre_px=fitted.origin.double().cpu().numpy().reshape(*scan, 2),
        dictionary=pictures.cpu().numpy(),
        found={
            "scale": masks.scale,
            "spots_px": masks.spots.tolist(),
            "spot_counts_per_px": masks.unit,
        },
    )


def on_detector(
    pictures: torch.Tensor, shape: tuple[int, ...], centre_px: tuple[float, float]
) -> torch.Tensor:
    """Pictures (E, D, D) cut or filled with zeros to the detector's `shape` (H, W). Their pixel
    D // 2 lies at the pixel nearest to the nominal direct beam (x, y).
    """
    height, width = shape
    side = pictures.shape[-1]
    left, top = round(centre_px[0]) - side // 2, round(centre_px[1]) - side // 2
    right, bottom = width - side - left, height - side - top
    # Negative padding cuts.
    return torch.nn.functional.pad(pictures, (left, right, top, bottom))


def materials(pictures: torch.Tensor, masks: Masks) -> torch.Tensor:
    """Label (E,) of each picture (E, D, D): 0 for background, where the spots hold little; the
    others 1, 2, ... in order.
    """
    side = pictures.shape[-1]
    axis = torch.arange(side, device=pictures.device, dtype=pictures.dtype) - side // 2
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    away = (places[:, :, None] - masks.spots).norm(dim=-1).amin(-1)
    ring_radius = float(masks.spots.norm(dim=1).mean())
    on_ring = (places.norm(dim=-1) - ring_radius).abs() < masks.radius
    between = (away > 2 * masks.radius) & on_ring
    inside = away < 0.7 * masks.radius
    background = pictures[:, between].mean(1) if between.any() else 0
    brightness = pictures[:, inside].mean(1) - background
    sample = brightness > MIN_RELATIVE_BRIGHTNESS * brightness.max()
    return torch.where(sample, sample.cumsum(0), 0)
