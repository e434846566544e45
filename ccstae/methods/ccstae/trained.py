"""What `ccstae` has learned from one scan, and how it is kept to map other scans of the same
specimen in the same instrument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccstae.errors import InputError
from ccstae.io import weights
from ccstae.io.counts import Counts
from ccstae.io.hdf5 import short
from ccstae.methods.ccstae import entries, spline
from ccstae.methods.ccstae.dictionary import Dictionary, patch_pixels
from ccstae.methods.ccstae.encoder import Encoder
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.shared.sites import SiteFinder, disk_radius_px

METHOD = "ccstae"
# What the weights depend on, and how far another scan may differ from the one that taught them.
_TOLERANCE = {
    "detector_px": 0.0,
    "energy_keV": 0.0,
    "semiangle_mrad": 0.0,
    "pixel_size_inv_A": 0.0,
    "lattice_inv_A": 1e-9,
    "rotational_symmetry": 0.0,
    "centre_px": 1.0,
}
_GAINS = ("on_gain", "ring_gain", "log_prior")
_DICTIONARY = ("g", "direct", "disk", "intensity", "background", "area", "spread")


@dataclass(frozen=True)
class Trained:
    """Site finder, dictionary and encoder, with what made them."""

    finder: SiteFinder
    dictionary: Dictionary
    encoder: Encoder | None
    electrons: float  # counts of a mean pattern of the scan that taught
    instrument: dict[str, Any]  # of that scan
    settings: CcstaeSettings

    def at_dose_of(self, counts: Counts) -> Dictionary:
        """The dictionary, scaled to a mean pattern of this scan."""
        return self.dictionary.scaled(electrons(counts) / self.electrons)


def electrons(counts: Counts) -> float:
    """Counts of a mean pattern."""
    return float(
        counts.counts.sum(dtype=np.float64) / (counts.counts.shape[0] * counts.counts.shape[1])
    )


def instrument(counts: Counts) -> dict[str, Any]:
    """What the weights depend on, as JSON holds it."""
    known = {"detector_px": counts.counts.shape[2:], **vars(counts.calibration)}
    return {name: np.asarray(known[name]).tolist() for name in _TOLERANCE}


def check(learned: Any, counts: Counts) -> None:
    """InputError where the counts come from another instrument or nominal lattice than those that
    taught.
    """
    for name, here in instrument(counts).items():
        there: Any = learned.get(name) if isinstance(learned, dict) else None
        try:
            same = np.shape(there) == np.shape(here) and np.allclose(
                there, here, rtol=1e-6, atol=_TOLERANCE[name]
            )
        except (TypeError, ValueError):
            same = False
        if not same:
            raise InputError(
                f"{counts.path}: {name} is {here}, the weights were learned at {short(there)}; "
                "expected the same instrument and nominal lattice: learn them anew"
            )


def kept(settings: CcstaeSettings) -> dict[str, Any]:
    """The settings that the weights depend on: all but the device."""
    return settings.model_dump(mode="json", exclude={"device"})


def save(path: Path | str, trained: Trained) -> None:
    """Write the weights as safetensors, with the settings that made them and the instrument."""
    d = trained.dictionary
    tensors = {f"dictionary.{name}": getattr(d, name) for name in _DICTIONARY}
    tensors |= {f"finder.{name}": getattr(trained.finder, name) for name in _GAINS}
    if trained.encoder is not None:
        tensors |= {
            f"encoder.{name}": value for name, value in trained.encoder.state_dict().items()
        }
    about = {
        "floor": d.floor,
        "error": d.error,
        "electrons": trained.electrons,
        "instrument": trained.instrument,
    }
    weights.write_weights(path, METHOD, tensors, {**about, "settings": kept(trained.settings)})


def load(path: Path | str, counts: Counts, settings: CcstaeSettings, device: str) -> Trained:
    """The weights in a file, to map `counts`.

    InputError where it is no such file, or the weights were learned with other settings, another
    instrument or another nominal lattice.
    """
    tensors, about = weights.read_weights(path, METHOD)
    told, wanted = about.get("settings"), kept(settings)
    if told != wanted:
        told = told if isinstance(told, dict) else {}
        pairs = [
            f"{name} {short(told.get(name))}, here {short(value)}"
            for name, value in wanted.items()
            if told.get(name) != value
        ]
        raise InputError(
            f"{path}: learned with other settings ({'; '.join(pairs)}); expected those of the "
            f"config"
        )
    check(about.get("instrument"), counts)
    shape = counts.counts.shape[2:]
    pixels = patch_pixels(disk_radius_px(counts.calibration))
    S, far = spline.samples(pixels), 2.0 * max(shape)
    g = weights.tensor(path, tensors, "dictionary.g", (None, 2), low=-far, high=far)
    E, K = min(len(tensors.get("dictionary.intensity", g)), entries.LARGEST_ENTRIES), len(g)
    dictionary = Dictionary(
        g=g,
        direct=weights.tensor(path, tensors, "dictionary.direct", (S, S), low=0),
        disk=weights.tensor(path, tensors, "dictionary.disk", (S, S), low=0),
        intensity=weights.tensor(path, tensors, "dictionary.intensity", (E, K), low=0),
        background=weights.tensor(path, tensors, "dictionary.background", shape, low=0),
        area=weights.tensor(path, tensors, "dictionary.area", (E, 2), torch.float64),
        spread=weights.tensor(path, tensors, "dictionary.spread", (K,), low=1e-3, high=1e3),
        pixels=pixels,
        floor=weights.number(path, about, "floor"),
        error=weights.number(path, about, "error"),
        affine=settings.transformer == "affine",
    )
    finder = SiteFinder.blank(counts.calibration, shape, device)
    gains: dict[str, Any] = {
        name: weights.tensor(path, tensors, f"finder.{name}", getattr(finder, name).shape).to(
            device
        )
        for name in _GAINS
    }
    encoder = None
    if "encoder" not in settings.without:
        encoder = Encoder()
        layers = {
            name: weights.tensor(path, tensors, f"encoder.{name}", value.shape)
            for name, value in encoder.state_dict().items()
        }
        encoder.load_state_dict(layers)
        encoder = encoder.to(device).eval()
    taught_by = weights.number(path, about, "electrons", low=1e-3)
    return Trained(
        replace(finder, **gains),
        dictionary.to(device),
        encoder,
        taught_by,
        about["instrument"],
        settings,
    )
