"""CC-ST-AE: cycle-consistent spatial transforming autoencoder.

An encoder gives each pattern a sparse code over a dictionary of averaged patterns, and a
deformation. A lattice-rigid transformer renders the pattern back. The cycle closes both ways.
Renderings of known deformations must encode to these deformations; this trains the encoder, in
parameter space. Patterns, brought back by their deformations, must agree with the dictionary; this
teaches the dictionary. The encoder's answer is then refined on the Poisson likelihood of the
counts, which also says how sure the answer is.

The method is given counts, calibration, the vacuum probe and the nominal lattice, and nothing else.
One setting serves all noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts
from ccstae.machine.device import at_a_time, side_by_side, spread_over
from ccstae.methods.base import Answer
from ccstae.methods.ccstae import dispersion, posterior, trained
from ccstae.methods.ccstae import encoder as encoders
from ccstae.methods.ccstae import learn as learning
from ccstae.methods.ccstae.alone import Alone, diffracted_over_direct
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.dispersion import Dispersion, Misfit
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.photon_transfer import PhotonTransfer
from ccstae.methods.ccstae.refine import STEPS, OfPatterns, State, covariance_of_M
from ccstae.methods.ccstae.residual import mean_residual
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.solve import solve
from ccstae.methods.ccstae.trained import Trained

# A method with weights has `learn`, `apply`, `save` and `load`.
from ccstae.methods.ccstae.trained import load as load
from ccstae.methods.ccstae.trained import save as save
from ccstae.methods.shared import windows
from ccstae.methods.shared.sites import SiteFinder

_BATCH = 128  # patterns at a time on a CPU
# What a pattern takes at most while it is evaluated, over the bytes of its float32 counts: windows
# of all disks, a dozen images of each.
_BYTES_PER_BYTE = 64
# Patterns among which teachers are sought, spread over the scan. Learning then takes as long for
# any scan.
MAX_CANDIDATES = 2048
MAX_TEACHERS = 512  # patterns that teach the dictionary
# Batches of a scan, spread over it, whose misfit and residual are looked at: 16,384 patterns on a
# CPU.
MAX_MISFIT_BATCHES = 128


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Map a scan with what is learned from the scan itself, without labels.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        settings: seed, transformer, and parts to leave out.
        device: "cpu" or "cuda".

    Returns:
        For every pattern its deformation, the covariance of strain and rotation, its label and its
        direct beam; for the scan the dictionary. Deformation and covariance are NaN where the data
        determine no lattice: the odds for a lattice are below 20 to 1, or the standard deviation of
        a strain component exceeds 0.05.
    """
    finder = SiteFinder.learn(counts, device)
    model = _learn_with(finder, counts, settings, device)
    return no_answer(counts, finder) if model is None else apply(model, counts, device)


def learn(counts: Counts, settings: CcstaeSettings, device: str) -> Trained | None:
    """Learn site finder, dictionary and encoder from the counts, without labels.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        settings: seed, transformer, and parts to leave out.
        device: "cpu" or "cuda".

    Returns:
        What `apply` and `save` take, or None where no pattern holds a lattice.
    """
    return _learn_with(SiteFinder.learn(counts, device), counts, settings, device)


def _learn_with(
    finder: SiteFinder,
    counts: Counts,
    settings: CcstaeSettings,
    device: str,
    readings: PhotonTransfer | None = None,
) -> Trained | None:
    """What `learn` returns. Where the readings turn out not to be electrons, all is learned anew
    from the electrons that they stand for, and `readings` says so.
    """
    scan = ScanPatterns(counts, device)
    candidates = spread_over(scan.patterns, MAX_CANDIDATES)
    rough, has_lattice = scan.locate(finder, candidates)
    teachers = has_lattice.nonzero()[:, 0]
    if len(teachers) == 0:
        return None
    teachers = teachers[spread_over(len(teachers), MAX_TEACHERS)]
    data, rough = scan.load(candidates[teachers.cpu().numpy()]), rough[teachers]
    radius = disk_radius_px(counts.calibration)
    centre = learning.beam_px(counts.calibration.centre_px, rough.centre, radius)
    probe = torch.from_numpy(counts.probe).to(device)
    affine = settings.transformer == "affine"
    dictionary = learning.start(data, rough, scan.nominal, probe, centre, radius, scan.good, affine)
    encoder = None
    if encoders.is_of_use(dictionary, settings.without):
        encoder = encoders.train(dictionary, rough.M, rough.centre, scan.shape, settings.seed)
    first = Encoded.join(
        [
            encoded(encoder, dictionary, data[part], rough[part])
            for part in torch.arange(len(data)).split(scan.batch)
        ]
    )
    dictionary, found = learning.teach(
        dictionary, data, first, radius, scan.batch, scan.good, settings.without
    )
    if readings is None and not found.counts_electrons:
        counts = found.electrons(counts)
        return _learn_with(SiteFinder.learn(counts, device), counts, settings, device, found)
    return Trained(
        finder=finder,
        dictionary=dictionary,
        encoder=encoder,
        instrument=trained.instrument(counts),
        settings=settings,
        readings=readings or PhotonTransfer(),
    )


def apply(model: Trained, counts: Counts, device: str) -> Answer:
    """Map a scan with what was learned from it, or from another scan of the same specimen in the
    same instrument, at any dose. Nothing is trained.

    Args:
        model: what `learn` or `load` returned.
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        device: "cpu" or "cuda".

    Returns:
        As `map_strain`.

    Raises:
        InputError: where the instrument or the nominal lattice is another one.
    """
    solved = solve_scan(model, counts, device)
    if solved is None:
        return no_answer(counts, model.finder)
    return answer_of(counts, solved)


@dataclass(frozen=True)
class ScanPatterns:
    """The patterns of a scan in scan order, as the model takes them."""

    counts: Counts
    device: str

    @property
    def shape(self) -> tuple[int, int]:
        """Of the detector, (Qy, Qx)."""
        return self.counts.detector

    @property
    def patterns(self) -> int:
        """How many there are."""
        return len(self.counts.patterns)

    @property
    def good(self) -> Tensor | None:
        """True where a pixel tells something, (Qy, Qx); None where all do."""
        if self.counts.good.all():
            return None
        return torch.from_numpy(self.counts.good).to(self.device)

    @property
    def nominal(self) -> Tensor:
        """Nominal lattice (2, 2) in pixels, vectors as columns."""
        calibration = self.counts.calibration
        lattice = calibration.lattice_inv_A / calibration.pixel_size_inv_A
        return torch.from_numpy(lattice).float().to(self.device)

    @property
    def batch(self) -> int:
        """How many to take at a time."""
        height, width = self.shape
        return at_a_time(_BATCH, 4 * height * width * _BYTES_PER_BYTE, self.device)

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Patterns (n, Qy, Qx) by their place in scan order."""
        return windows.to_tensor(self.counts.patterns[rows], self.device)

    def batches(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows, as many at a time as memory takes."""
        return [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]

    def locate(self, finder: SiteFinder, rows: NDArray[np.int64]) -> tuple[Encoded, Tensor]:
        """Rough lattices and direct beams of these n patterns, and which hold a lattice (n,)."""
        located = [finder.locate(self.load(part), part) for part in self.batches(rows)]
        G = torch.cat([part.G for part in located])
        centre = torch.cat([part.centre for part in located])
        has_lattice = torch.cat([part.has_lattice for part in located])
        return Encoded(G @ torch.linalg.inv(self.nominal), centre), has_lattice


@dataclass(frozen=True)
class Found(OfPatterns):
    """What is kept of n patterns that are solved: of a large scan it fills the memory."""

    M: Float[Tensor, "n 2 2"]
    centre: Float[Tensor, "n 2"]  # direct beam, pixels
    covariance: Float64[Tensor, "n 4 4"]  # of M, with centre and background scale unknown
    diffracted: Float[Tensor, " n"]  # counts of the diffracted disks over those of the direct beam
    odds: Float[Tensor, "n E"]  # log odds of the entries from the intensities


@dataclass(frozen=True)
class Solved:
    """What the counts of a scan say, pattern by pattern."""

    dictionary: Dictionary
    rows: NDArray[np.int64]  # (n,), the patterns with a lattice, in scan order
    found: Found
    covariance: Float64[Tensor, "n 4 4"]  # that of `found`, widened
    dispersion: Dispersion  # by which it was widened
    centre: Float[Tensor, "patterns 2"]  # direct beams of all Ry Rx patterns of the scan
    finder: SiteFinder
    readings: PhotonTransfer
    residual: NDArray[np.float32] | None  # (Qy, Qx), as `mean_residual` gives it


def solve_scan(model: Trained, counts: Counts, device: str) -> Solved | None:
    """Encode and refine every pattern that holds a lattice.

    Args:
        model: what `learn` or `load` returned.
        counts: the scan to map.
        device: "cpu" or "cuda".

    Returns:
        The states of these patterns, or None where no pattern holds a lattice.

    Raises:
        InputError: where the instrument or the nominal lattice is another one.
    """
    trained.require_same_instrument(model.instrument, counts)
    counts = model.readings.electrons(counts)
    scan = ScanPatterns(counts, device)
    dictionary = model.at_dose_of(counts)
    without = model.settings.without
    finder = model.finder.at(counts)
    rough, has_lattice = scan.locate(finder, np.arange(scan.patterns))
    rows = has_lattice.nonzero()[:, 0].cpu().numpy()
    if len(rows) == 0:
        return None
    steps = 0 if "refinement" in without else STEPS
    # Disks that stray are located by all their counts together, to first order.
    likelihood_alone = {"refinement", "posterior"} & set(without)
    posterior_mean = not (likelihood_alone or dictionary.affine or dictionary.stray_px)

    # The places of disks tell of the model where the likelihood has its maximum.
    at_maximum = not ("refinement" in without or dictionary.affine)

    batches = scan.batches(rows)
    # The misfits and residuals of these tell of the whole scan.
    telling = {int(batches[i][0]) for i in spread_over(len(batches), MAX_MISFIT_BATCHES)}

    def solve_batch(part: NDArray[np.int64]) -> tuple[Found, Misfit | None, State | None]:
        data = scan.load(part)
        first = encoded(model.encoder, dictionary, data, rough[torch.from_numpy(part).to(device)])
        found = solve(dictionary, data, first, rounds=2, good=scan.good, steps=steps)
        state, information = found.state, found.at.information
        tells = int(part[0]) in telling
        misfit = dispersion.misfit(dictionary, found.at) if at_maximum and tells else None
        if posterior_mean:
            state, information = posterior.posterior_mean(
                found.patterns, dictionary, state, found.at
            )
        kept = Found(
            state.M,
            state.centre,
            covariance_of_M(information),
            diffracted_over_direct(state.intensity),
            found.odds,
        )
        return kept, misfit, state if tells else None

    solved = side_by_side(solve_batch, batches, device, (Found, Misfit, State))
    misfits = [misfit for _, misfit, _ in solved if misfit is not None]
    fitted = (
        (scan.load(part), state)
        for part, (_, _, state) in zip(batches, solved, strict=True)
        if state is not None
    )
    residual = mean_residual(dictionary, fitted, scan.good)
    scan_dispersion = dispersion.of_scan(misfits, dictionary.stray_px)
    found = Found.join([kept for kept, _, _ in solved])
    centre = rough.centre.clone()
    centre[rows] = found.centre
    return Solved(
        dictionary,
        rows,
        found,
        scan_dispersion.widened(found.covariance),
        scan_dispersion,
        centre,
        finder,
        model.readings,
        residual,
    )


def encoded(
    encoder: encoders.Encoder | None, dictionary: Dictionary, data: Tensor, rough: Encoded
) -> Encoded:
    """The encoder's answers; the rough ones where it is left out."""
    return rough if encoder is None else encoders.encode(encoder, dictionary, data, rough)


def no_answer(counts: Counts, finder: SiteFinder) -> Answer:
    """The answer for a scan that holds no lattice, as the site finder has it."""
    scan = counts.scan
    return Answer(
        np.full((*scan, 2, 2), np.nan),
        np.full((*scan, 4, 4), np.nan),
        np.zeros(scan, np.int8),
        found=finder.found,
    )


def answer_of(counts: Counts, solved: Solved) -> Answer:
    """The answer for a scan, from what its patterns say."""
    found = solved.found
    alone = Alone.of(
        solved.rows,
        found.M,
        solved.covariance,
        found.odds,
        found.diffracted,
        solved.dictionary,
        counts.calibration.rotational_symmetry,
    )
    return Answer(
        **alone.answer(counts.scan, alone.M, alone.covariance),
        centre_px=solved.centre.cpu().double().numpy().reshape(*counts.scan, 2),
        dictionary=solved.dictionary.pictures().cpu().numpy(),
        residual=solved.residual,
        found=solved.finder.found
        | {
            "entries": len(solved.dictionary.intensity),
            "model_error": solved.dictionary.error,
            "patterns_on_sample": len(solved.rows),
            "chi2_per_degree_of_freedom": solved.dispersion.chi2_per_degree,
            "stray_px": solved.dispersion.stray_px,
            "dispersion_of_counts": solved.dispersion.counts,
            "deviations_widened": solved.dispersion.widening,
            "gain": solved.readings.gain,
            "model": "; ".join(filter(None, [solved.readings.words(), solved.dispersion.words()])),
        },
        alone=vars(alone),
    )
