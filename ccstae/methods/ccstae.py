"""CC-ST-AE: cycle-consistent spatial transforming autoencoder.

An encoder gives each pattern a sparse code over a dictionary of averaged patterns and a deformation; a lattice-rigid transformer renders
the pattern back. The cycle closes both ways: renderings of known deformations must encode to them (training, in parameter
space), and patterns, brought back by their deformations, must agree with the dictionary (learning the dictionary).
The encoder's answer is then refined on the Poisson likelihood of the counts, which also says how sure it is.

Nothing is told to it but counts, calibration, the vacuum probe and the nominal lattice, and one setting serves all noise levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae import geometry
from ccstae.methods import windows
from ccstae.methods.base import Answer
from ccstae.methods.sites import SiteFinder, disk_radius_px
from ccstae.model import dictionary as dictionaries
from ccstae.model import encoder as encoders
from ccstae.model import learn, posterior, transformer
from ccstae.model.dictionary import Dictionary
from ccstae.model.refine import STEPS, Evaluation, State, covariance_of_M, refine
from ccstae.settings.method import CcstaeSettings
from ccstae.store import Counts

_BATCH = 128
_TEACHERS = 512  # patterns that teach the dictionary, spread over the scan
_FREE = 1.0  # relative spread of intensities that no entry holds
_WORST_STRAIN = 0.05  # a standard deviation beyond this is no answer


@dataclass(frozen=True)
class Solved:
    """What the counts of a scan say, pattern by pattern."""

    dictionary: Dictionary
    rows: NDArray[np.int64]  # (n,), the patterns with a lattice, in scan order
    state: State
    normal: Tensor  # (n, 7, 7), information of M, centre and level
    odds: Tensor  # (n, E), log odds of the entries from the intensities
    centre: Tensor  # (Ry Rx, 2), of all patterns


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Deformation, covariance and class of every pattern; NaN where the data determine no lattice.

    That is: no lattice is found (odds below 20 to 1), or the standard deviation of a strain component exceeds 0.05.
    """
    solved = solve_scan(counts, settings, device)
    return nothing(counts) if solved is None else answer(counts, solved, solved.state.M.double(), covariance_of_M(solved.normal))


def solve_scan(counts: Counts, settings: CcstaeSettings, device: str) -> Solved | None:
    """Learn dictionary and encoder from the counts, then encode and refine every pattern that holds a lattice; None where none does."""
    shape = (counts.counts.shape[2], counts.counts.shape[3])
    patterns = counts.counts.reshape(-1, *shape)
    finder = SiteFinder.learn(counts, device)

    def batches(rows: np.ndarray) -> list[np.ndarray]:
        size = windows.batch(_BATCH)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def load(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(patterns[rows].astype(np.float32)).to(device)

    nominal = torch.from_numpy(counts.calibration.lattice_inv_A / counts.calibration.pixel_size_inv_A).float().to(device)
    rough = [finder.locate(load(rows)) for rows in batches(np.arange(len(patterns)))]
    found = torch.cat([r.found for r in rough])
    M = torch.cat([r.G for r in rough]) @ torch.linalg.inv(nominal)
    centre = torch.cat([r.centre for r in rough])
    rows = found.nonzero()[:, 0].cpu().numpy()
    if len(rows) == 0:
        return None
    teachers = rows[:: -(-len(rows) // _TEACHERS)]
    dictionary = start(counts, load(teachers), M[teachers], centre[teachers], nominal, device)
    encoder = None
    if "encoder" not in settings.without:
        encoder = encoders.train(dictionary, M[teachers], centre[teachers], shape, settings.seed)

    def encoded(part: np.ndarray, data: Tensor, dictionary: Dictionary) -> encoders.Encoded:
        rough = encoders.Encoded(M[part], centre[part])
        return rough if encoder is None else encoders.encode(encoder, dictionary, data, rough)

    dictionary = learned(counts, dictionary, encoded, load, batches(teachers), settings)
    steps = 0 if "refinement" in settings.without else STEPS
    answers = []
    for part in batches(rows):
        data = load(part)
        state, at, odds = solve(dictionary, data, encoded(part, data, dictionary), 2, steps)
        normal = at.normal
        if steps and "posterior" not in settings.without:
            state, normal = posterior.mean(data, dictionary, state, at)
        answers.append((state, normal, odds))
    state = State.join([state for state, _, _ in answers])
    normal, odds = torch.cat([n for _, n, _ in answers]), torch.cat([o for _, _, o in answers])
    centre[rows] = state.centre
    return Solved(dictionary, rows, state, normal, odds, centre)


def nothing(counts: Counts) -> Answer:
    """The answer for a scan that holds no lattice."""
    scan = counts.counts.shape[:2]
    return Answer(np.full((*scan, 2, 2), np.nan), np.full((*scan, 4, 4), np.nan), np.zeros(scan, np.int8))


def answer(counts: Counts, solved: Solved, M: Tensor, covariance: Tensor) -> Answer:
    """The answer of lattices M (n, 2, 2) with covariance (n, 4, 4), float64, for the rows of `solved`."""
    scan = counts.counts.shape[:2]
    total = scan[0] * scan[1]
    F = np.full((total, 2, 2), np.nan)
    components = np.full((total, 4, 4), np.nan)
    label = np.zeros(total, np.int8)
    F[solved.rows], components[solved.rows] = deformation(M, covariance)
    entry = learn.likeliest(solved.odds, solved.dictionary.area, learn.log_area(M, covariance))
    label[solved.rows] = entry.cpu().numpy() + 1
    lost = ~(np.sqrt(np.diagonal(components, axis1=1, axis2=2)[:, :3]).max(1, initial=0.0) < _WORST_STRAIN)
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


def start(counts: Counts, teachers: Tensor, M: Tensor, centre: Tensor, nominal: Tensor, device: str) -> Dictionary:
    """A first dictionary: the vacuum probe at the nominal lattice, mean intensities, radial background."""
    shape = (teachers.shape[1], teachers.shape[2])
    radius = disk_radius_px(counts.calibration)
    reach = min(shape) / 2
    hk = geometry.lattice_nodes(nominal.cpu().numpy().astype(float), 1.5 * reach)
    g = torch.from_numpy(hk).float().to(device) @ nominal.T
    # A disk counts when its centre lies on the detector for most of the scan.
    position = transformer.positions(M, centre, g)
    on = ((position > 0) & (position < torch.tensor([shape[1] - 1, shape[0] - 1], device=device))).all(-1).float().mean(0) > 0.5
    g, position = g[on], position[:, on]
    probe = torch.from_numpy(counts.probe).to(device)
    profile = dictionaries.from_probe(probe, counts.calibration.centre_px, radius)
    background = learn.background(teachers, position, radius, counts.calibration.centre_px, probe)
    pixels = dictionaries.patch_pixels(radius)
    patch = transformer.patches(position, transformer.square(pixels, teachers.device), shape)
    intensity = (patch.cut(teachers) - patch.cut(background)).sum(-1) / patch.inside.mean(-1).clamp_min(0.2)
    mean = intensity.mean(0)
    mean = mean.clamp_min(1e-3 * float(mean[1:].mean()))
    floor = 1e-13 * float(teachers.sum((1, 2)).mean())
    anywhere = torch.tensor([[0.0, 1.0]], dtype=torch.float64, device=mean.device)
    return Dictionary(g, profile, profile, mean[None], background, anywhere, torch.full_like(mean, _FREE), pixels, floor)


def solve(
    dictionary: Dictionary, data: Tensor, first: encoders.Encoded, rounds: int, steps: int = STEPS
) -> tuple[State, Evaluation, Tensor]:
    """Refine the encoder's answers on the likelihood; returns states, their evaluation and the entries' log odds (n, E).

    The code is read from intensities that no entry has pulled at; later rounds hold the intensities to what the entry expects.
    """
    n = len(data)
    prior = dictionary.intensity.mean(0).expand(n, -1)
    free = replace(dictionary, spread=torch.full_like(dictionary.spread, _FREE))
    state, at = refine(data, free, State(first.M, first.centre, prior.clone(), torch.ones(n, device=data.device), prior), steps)
    expected, odds = learn.expected(dictionary, state, 1 / at.own)
    entry = learn.likeliest(odds, dictionary.area, learn.log_area(state.M, covariance_of_M(at.normal)))
    prior = torch.cat([state.intensity[:, :1], expected[torch.arange(n, device=data.device), entry]], 1)
    for _ in range(rounds - 1):
        state, at = refine(data, dictionary, replace(state, prior=prior), steps)
    return state, at, odds


def learned(
    counts: Counts,
    dictionary: Dictionary,
    encoded: Callable[[np.ndarray, Tensor, Dictionary], encoders.Encoded],
    load: Callable[[np.ndarray], Tensor],
    batches: list[np.ndarray],
    settings: CcstaeSettings,
) -> Dictionary:
    """The dictionary after the teachers, encoded and refined, have been brought back to it."""
    solved = []
    for rows in batches:
        data = load(rows)
        solved.append(solve(dictionary, data, encoded(rows, data, dictionary), 1)[:2])
    state = State.join([s for s, _ in solved])
    variance = torch.cat([1 / e.own for _, e in solved]).float()
    covariance = covariance_of_M(torch.cat([e.normal for _, e in solved]))
    dictionary, state = learn.code(dictionary, state, variance, covariance, 1 if "entries" in settings.without else learn.LARGEST_ENTRIES)
    data = torch.cat([load(rows) for rows in batches])
    position = transformer.positions(state.M, state.centre, dictionary.g)
    probe = torch.from_numpy(counts.probe).to(data.device)
    cusp = "background" not in settings.without
    background = learn.background(data, position, disk_radius_px(counts.calibration), counts.calibration.centre_px, probe, cusp)
    dictionary = replace(dictionary, background=background)
    if "shape" not in settings.without:
        dictionary = learn.shape(dictionary, data, state, 2)
    return replace(dictionary, error=learn.model_error(dictionary, data, state))


def deformation(M: Tensor, covariance: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F (n, 2, 2) = M^-T and the covariance (n, 4, 4) of (exx, eyy, exy, theta), from that of M (n, 2, 2), float64."""
    F = geometry.inverse_transpose(M.cpu().numpy())
    # F = M^-T: dF = -M^-T dM^T M^-T, so dF_ij / dM_kl = -F_il F_kj.
    change = -np.einsum("nil,nkj->nijkl", F, F).reshape(-1, 4, 4)
    jacobian = geometry.components_jacobian(F) @ change
    return F, jacobian @ covariance.cpu().numpy() @ np.swapaxes(jacobian, 1, 2)
