"""CC-ST-AE: cycle-consistent spatial transforming autoencoder.

An encoder gives each pattern a sparse code over a dictionary of averaged patterns and a
deformation; a lattice-rigid transformer renders the pattern back. The cycle closes both ways:
renderings of known deformations must encode to them (training, in parameter space), and patterns,
brought back by their deformations, must agree with the dictionary (learning the dictionary). The
encoder's answer is then refined on the Poisson likelihood of the counts, which also says how sure
it is.

Nothing is told to it but counts, calibration, the vacuum probe and the nominal lattice, and one
setting serves all noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae import geometry
from ccstae.io.counts import Counts
from ccstae.machine.device import batch, side_by_side
from ccstae.methods.base import Answer
from ccstae.methods.ccstae import encoder as encoders
from ccstae.methods.ccstae import entries, posterior, trained
from ccstae.methods.ccstae import learn as learning
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import STEPS, State, covariance_of_M
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.solve import solve
from ccstae.methods.ccstae.trained import Trained
from ccstae.methods.ccstae.trained import (
    load as load,
)  # a method with weights has `learn`, `apply`, `save` and `load`
from ccstae.methods.ccstae.trained import save as save
from ccstae.methods.shared import windows
from ccstae.methods.shared.sites import SiteFinder, disk_radius_px

_BATCH = 128
# patterns among which teachers are sought, spread over the scan: learning takes as long for any
# scan
_LOOKED_AT = 2048
_TEACHERS = 512  # patterns that teach the dictionary, at most
_WORST_STRAIN = 0.05  # a standard deviation beyond this is no answer


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Deformation, covariance and class of every pattern; NaN where the data determine no lattice.

    That is: no lattice is found (odds below 20 to 1), or the standard deviation of a strain
    component exceeds 0.05.
    """
    model = learn(counts, settings, device)
    return nothing(counts) if model is None else apply(model, counts, device)


def learn(counts: Counts, settings: CcstaeSettings, device: str) -> Trained | None:
    """Site finder, dictionary and encoder, learned from the counts without labels; None where no
    pattern holds a lattice.
    """
    scan = Scan(counts, device)
    finder = SiteFinder.learn(counts, device)
    looked_at = np.arange(scan.patterns)[:: -(-scan.patterns // _LOOKED_AT)]
    rough, found = scan.locate(finder, looked_at)
    teachers = found.nonzero()[:, 0]
    if len(teachers) == 0:
        return None
    teachers = teachers[:: -(-len(teachers) // _TEACHERS)]
    data, rough = scan.load(looked_at[teachers.cpu().numpy()]), rough[teachers]
    probe, centre, radius = (
        torch.from_numpy(counts.probe).to(device),
        counts.calibration.centre_px,
        disk_radius_px(counts.calibration),
    )
    dictionary = learning.start(
        data, rough, scan.nominal, probe, centre, radius, settings.transformer == "affine"
    )
    encoder = None
    if "encoder" not in settings.without:
        encoder = encoders.train(dictionary, rough.M, rough.centre, scan.shape, settings.seed)
    first = encoded(encoder, dictionary, data, rough)
    dictionary = learning.teach(
        dictionary, data, first, probe, centre, radius, batch(_BATCH), settings.without
    )
    return Trained(
        finder, dictionary, encoder, trained.electrons(counts), trained.instrument(counts), settings
    )


def apply(model: Trained, counts: Counts, device: str) -> Answer:
    """`map_strain` with what was learned from another scan of the same specimen in the same
    instrument, at any dose. Nothing is trained.

    InputError where the instrument or the nominal lattice is another one.
    """
    solved = solve_scan(model, counts, device)
    return (
        nothing(counts)
        if solved is None
        else answer(counts, solved, solved.state.M.double(), covariance_of_M(solved.normal))
    )


@dataclass(frozen=True)
class Scan:
    """The patterns of a scan in scan order, as the model sees them."""

    counts: Counts
    device: str

    @property
    def shape(self) -> tuple[int, int]:
        """Of the detector, (Qy, Qx)."""
        return self.counts.counts.shape[2], self.counts.counts.shape[3]

    @property
    def patterns(self) -> int:
        """How many there are."""
        return self.counts.counts.shape[0] * self.counts.counts.shape[1]

    @property
    def nominal(self) -> Tensor:
        """Nominal lattice (2, 2) in pixels, columns."""
        calibration = self.counts.calibration
        return (
            torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A)
            .float()
            .to(self.device)
        )

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Patterns (n, Qy, Qx) by their place in scan order."""
        return windows.load(self.counts.counts.reshape(-1, *self.shape)[rows], self.device)

    def batches(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows, so many at a time as memory takes."""
        size = batch(_BATCH)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def locate(self, finder: SiteFinder, rows: NDArray[np.int64]) -> tuple[Encoded, Tensor]:
        """Rough lattices and centres of these patterns, and which hold a lattice (n,)."""
        rough = [finder.locate(self.load(part)) for part in self.batches(rows)]
        G, centre, found = (
            torch.cat([getattr(r, name) for r in rough]) for name in ("G", "centre", "found")
        )
        return Encoded(G @ torch.linalg.inv(self.nominal), centre), found


@dataclass(frozen=True)
class Solved:
    """What the counts of a scan say, pattern by pattern."""

    dictionary: Dictionary
    rows: NDArray[np.int64]  # (n,), the patterns with a lattice, in scan order
    state: State
    normal: Tensor  # (n, 7, 7), information of M, centre and level
    odds: Tensor  # (n, E), log odds of the entries from the intensities
    centre: Tensor  # (Ry Rx, 2), of all patterns


def solve_scan(model: Trained, counts: Counts, device: str) -> Solved | None:
    """Encode and refine every pattern that holds a lattice; None where none does."""
    trained.check(model.instrument, counts)
    scan, dictionary, without = (
        Scan(counts, device),
        model.at_dose_of(counts),
        model.settings.without,
    )
    rough, found = scan.locate(model.finder, np.arange(scan.patterns))
    rows = found.nonzero()[:, 0].cpu().numpy()
    if len(rows) == 0:
        return None

    def answers(part: NDArray[np.int64]) -> tuple[State, Tensor, Tensor]:
        data = scan.load(part)
        first = encoded(model.encoder, dictionary, data, rough[torch.from_numpy(part).to(device)])
        state, at, odds = solve(
            dictionary, data, first, rounds=2, steps=0 if "refinement" in without else STEPS
        )
        normal = at.normal
        if not {"refinement", "posterior"} & set(without) and not dictionary.affine:
            state, normal = posterior.mean(data, dictionary, state, at)
        return state, normal, odds

    states, normals, every = zip(*side_by_side(answers, scan.batches(rows), device), strict=True)
    state, normal, odds = State.join(list(states)), torch.cat(normals), torch.cat(every)
    centre = rough.centre.clone()
    centre[rows] = state.centre
    return Solved(dictionary, rows, state, normal, odds, centre)


def encoded(
    encoder: encoders.Encoder | None, dictionary: Dictionary, data: Tensor, rough: Encoded
) -> Encoded:
    """The encoder's answers; the rough ones where it is left out."""
    return rough if encoder is None else encoders.encode(encoder, dictionary, data, rough)


def nothing(counts: Counts) -> Answer:
    """The answer for a scan that holds no lattice."""
    scan = counts.counts.shape[:2]
    return Answer(
        np.full((*scan, 2, 2), np.nan), np.full((*scan, 4, 4), np.nan), np.zeros(scan, np.int8)
    )


def answer(counts: Counts, solved: Solved, M: Tensor, covariance: Tensor) -> Answer:
    """The answer of lattices M (n, 2, 2) with covariance (n, 4, 4), float64, for the rows of
    `solved`.
    """
    scan = counts.counts.shape[:2]
    total = scan[0] * scan[1]
    F = np.full((total, 2, 2), np.nan)
    components = np.full((total, 4, 4), np.nan)
    label = np.zeros(total, np.int8)
    F[solved.rows], components[solved.rows] = deformation(M, covariance)
    entry = entries.likeliest(solved.odds, solved.dictionary.area, entries.log_area(M, covariance))
    label[solved.rows] = np.where(
        (covered(solved.dictionary, solved.state, entry) < 0.5).cpu().numpy(),
        0,
        entry.cpu().numpy() + 1,
    )
    lost = ~(
        np.sqrt(np.diagonal(components, axis1=1, axis2=2)[:, :3]).max(1, initial=0.0)
        < _WORST_STRAIN
    )
    F[lost] = components[lost] = np.nan
    return Answer(
        F.reshape(*scan, 2, 2),
        components.reshape(*scan, 4, 4),
        label.reshape(scan),
        solved.centre.cpu().double().numpy().reshape(*scan, 2),
        dictionary=solved.dictionary.pictures().cpu().numpy(),
        found={
            "entries": len(solved.dictionary.intensity),
            "model_error": solved.dictionary.error,
            "patterns_on_sample": len(solved.rows),
        },
    )


def covered(dictionary: Dictionary, state: State, entry: Tensor) -> Tensor:
    """Share (n,) of the probe that meets the sample: diffracted over direct counts, against those
    of the pattern's entry (n,).

    Below a half the probe's centre is beside the sample, and the lattice is seen with its rim.
    """
    diffracted = [
        counts[:, 1:].sum(1) / counts[:, 0] for counts in (state.intensity, dictionary.intensity)
    ]
    return diffracted[0] / diffracted[1][entry]


def deformation(M: Tensor, covariance: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F (n, 2, 2) = M^-T and the covariance (n, 4, 4) of (exx, eyy, exy, theta), from that of M (n,
    2, 2), float64.
    """
    F = geometry.inverse_transpose(M.cpu().numpy())
    # F = M^-T: dF = -M^-T dM^T M^-T, so dF_ij / dM_kl = -F_il F_kj.
    change = -np.einsum("nil,nkj->nijkl", F, F).reshape(-1, 4, 4)
    jacobian = geometry.components_jacobian(F) @ change
    return F, jacobian @ covariance.cpu().numpy() @ np.swapaxes(jacobian, 1, 2)
