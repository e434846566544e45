"""What `ccstae` has learned from one scan, and how it is kept in a file to map other scans of the
same specimen in the same instrument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccstae.errors import InputError
from ccstae.io import weights
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts
from ccstae.io.hdf5 import short
from ccstae.io.slips import nearest_px
from ccstae.io.stored import slabs
from ccstae.methods.ccstae import intensities, spline
from ccstae.methods.ccstae.dictionary import Dictionary, patch_pixels, touching
from ccstae.methods.ccstae.encoder import Encoder, is_of_use
from ccstae.methods.ccstae.photon_transfer import PhotonTransfer
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.shared.sites import SiteFinder

METHOD = "ccstae"
# What the weights depend on, and how far another scan may differ from the one that taught them.
_INSTRUMENT_TOLERANCE = {
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
    instrument: dict[str, Any]  # of that scan
    settings: CcstaeSettings
    readings: PhotonTransfer = field(default_factory=PhotonTransfer)  # of its camera

    def at_dose_of(self, counts: Counts) -> Dictionary:
        """The dictionary, scaled to a mean pattern of this scan."""
        return self.dictionary.scaled(electrons(counts) / self.dictionary.electrons)


def electrons(counts: Counts) -> float:
    """Counts of a mean pattern."""
    patterns = counts.patterns
    total = sum(float(patterns[rows].sum(dtype=np.float64)) for rows in slabs(patterns))
    return total / len(patterns)


def instrument(counts: Counts) -> dict[str, Any]:
    """What the weights depend on, as JSON holds it."""
    known = {"detector_px": counts.detector, **vars(counts.calibration)}
    return {name: np.asarray(known[name]).tolist() for name in _INSTRUMENT_TOLERANCE}


def require_same_instrument(learned: Any, counts: Counts) -> None:
    """Refuse counts from another instrument or nominal lattice than those that taught.

    Args:
        learned: what `instrument` gave for the scan that taught, or whatever a file holds there.
        counts: the scan to map.

    Raises:
        InputError: for the first value that differs.
    """
    for name, here in instrument(counts).items():
        there: Any = learned.get(name) if isinstance(learned, dict) else None
        try:
            same = np.shape(there) == np.shape(here) and np.allclose(
                there, here, rtol=1e-6, atol=_INSTRUMENT_TOLERANCE[name]
            )
        except (TypeError, ValueError):
            same = False
        if not same:
            raise InputError(
                f"{counts.path}: {name} is {here}, the weights were learned at {short(there)}; "
                "expected the same instrument and nominal lattice: learn them anew"
            )


def learning_settings(settings: CcstaeSettings) -> dict[str, Any]:
    """The settings that the weights depend on: all but the device."""
    return settings.model_dump(mode="json", exclude={"device"})


def save(path: Path | str, trained: Trained) -> None:
    """Write what was learned as safetensors, with the settings that made it and the instrument.

    Args:
        path: the file, which is written whole or not at all.
        trained: what `learn` returned.
    """
    d = trained.dictionary
    tensors = {f"dictionary.{name}": getattr(d, name) for name in _DICTIONARY}
    tensors["dictionary.centre_px"] = torch.tensor(d.centre_px, dtype=torch.float64)
    tensors |= {f"finder.{name}": getattr(trained.finder.mixture, name) for name in _GAINS}
    if trained.encoder is not None:
        layers = trained.encoder.state_dict()
        tensors |= {f"encoder.{name}": value for name, value in layers.items()}
    about = {
        "floor": d.floor,
        "error": d.error,
        "stray_px": d.stray_px,
        "electrons": d.electrons,
        "gain": trained.readings.gain,
        "readout_variance": trained.readings.constant,
        "instrument": trained.instrument,
        "settings": learning_settings(trained.settings),
    }
    weights.write_weights(path, METHOD, tensors, about)


def load(path: Path | str, counts: Counts, settings: CcstaeSettings, device: str) -> Trained:
    """Read what was learned from another scan, to map `counts`.

    Args:
        path: a file that `save` wrote.
        counts: the scan to map.
        settings: those of the run; all but the device must be those that made the weights.
        device: "cpu" or "cuda".

    Returns:
        What `learn` returned for the other scan, on the device.

    Raises:
        InputError: where the file is missing, damaged or no such file, or where the weights were
            learned with other settings, in another instrument or for another nominal lattice.
    """
    tensors, about = weights.read_weights(path, METHOD)
    _require_same_settings(path, about.get("settings"), settings)
    require_same_instrument(about.get("instrument"), counts)
    finder = SiteFinder.blank(counts.calibration, counts.detector, device)
    gains: dict[str, Any] = {
        name: weights.tensor(
            path, tensors, f"finder.{name}", getattr(finder.mixture, name).shape
        ).to(device)
        for name in _GAINS
    }
    dictionary = _load_dictionary(path, tensors, about, counts, settings).to(device)
    encoder = None
    if is_of_use(dictionary, settings.without):
        encoder = Encoder()
        layers = {
            name: weights.tensor(path, tensors, f"encoder.{name}", value.shape)
            for name, value in encoder.state_dict().items()
        }
        encoder.load_state_dict(layers)
        encoder = encoder.to(device).eval()
    return Trained(
        finder=replace(finder, mixture=replace(finder.mixture, **gains)),
        dictionary=dictionary,
        encoder=encoder,
        instrument=about["instrument"],
        settings=settings,
        readings=PhotonTransfer(
            weights.number(path, about, "gain", low=1e-9),
            weights.number(path, about, "readout_variance", low=-math.inf),
        ),
    )


def _require_same_settings(path: Path | str, learned: Any, settings: CcstaeSettings) -> None:
    wanted = learning_settings(settings)
    if learned == wanted:
        return
    known = learned if isinstance(learned, dict) else {}
    pairs = [
        f"{name} {short(known.get(name))}, here {short(value)}"
        for name, value in wanted.items()
        if known.get(name) != value
    ]
    raise InputError(
        f"{path}: learned with other settings ({'; '.join(pairs)}); expected those of the config"
    )


def _load_dictionary(
    path: Path | str,
    tensors: dict[str, torch.Tensor],
    about: dict[str, Any],
    counts: Counts,
    settings: CcstaeSettings,
) -> Dictionary:
    """The dictionary of a file whose instrument is that of the counts."""
    shape = counts.detector
    calibration = counts.calibration
    pixels = patch_pixels(disk_radius_px(calibration), nearest_px(calibration))
    S, far = spline.samples(pixels), 2.0 * max(shape)
    g = weights.tensor(path, tensors, "dictionary.g", (None, 2), low=-far, high=far)
    E, K = min(len(tensors.get("dictionary.intensity", g)), intensities.MAX_ENTRIES), len(g)
    centre_x, centre_y = weights.tensor(
        path, tensors, "dictionary.centre_px", (2,), torch.float64, low=-far, high=far
    )
    return Dictionary(
        g=g,
        direct=weights.tensor(path, tensors, "dictionary.direct", (S, S), low=0),
        disk=weights.tensor(path, tensors, "dictionary.disk", (S, S), low=0),
        intensity=weights.tensor(path, tensors, "dictionary.intensity", (E, K), low=0),
        background=weights.tensor(path, tensors, "dictionary.background", (None,), low=0),
        centre_px=(float(centre_x), float(centre_y)),
        detector_px=(shape[0], shape[1]),
        electrons=weights.number(path, about, "electrons", low=1e-3),
        area=weights.tensor(path, tensors, "dictionary.area", (E, 2), torch.float64),
        spread=weights.tensor(path, tensors, "dictionary.spread", (K,), low=1e-3, high=1e3),
        pixels=pixels,
        floor=weights.number(path, about, "floor"),
        error=weights.number(path, about, "error"),
        stray_px=weights.number(path, about, "stray_px"),
        affine=settings.transformer == "affine",
        touching=touching(disk_radius_px(calibration), nearest_px(calibration)),
    )
