"""CC-ST-AE: cycle-consistent spatial transforming autoencoder.

An encoder gives each pattern a sparse code over a dictionary of averaged patterns and a deformation; a lattice-rigid transformer renders
the pattern back. The cycle closes both ways: renderings of known deformations must encode to them (training, in parameter
space), and patterns, brought back by their deformations, must agree with the dictionary (learning the dictionary).
The encoder's answer is then refined on the Poisson likelihood of the counts, which also says how sure it is.

Nothing is told to it but counts, calibration, the vacuum probe and the nominal lattice, and one setting serves all noise levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ccstae import geometry
from ccstae.methods import windows
from ccstae.methods.base import Answer
from ccstae.methods.sites import SiteFinder, disk_radius_px
from ccstae.model import dictionary as dictionaries
from ccstae.model import encoder as encoders
from ccstae.model import learn, posterior, transformer
from ccstae.model.dictionary import Dictionary
from ccstae.model.refine import Evaluation, State, inverse, refine
from ccstae.settings.method import CcstaeSettings
from ccstae.store import Counts

_BATCH = 128
_TEACHERS = 512  # patterns that teach the dictionary, spread over the scan
_FREE = 1.0  # relative spread of intensities that no entry holds
_WORST_STRAIN = 0.05  # a standard deviation beyond this is no answer


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Deformation, covariance and class of every pattern; NaN where the data determine no lattice.

    That is: no lattice is found (odds below 20 to 1), or the standard deviation of a strain component exceeds 0.05.
    """
    scan, shape = counts.counts.shape[:2], (counts.counts.shape[2], counts.counts.shape[3])
    patterns = counts.counts.reshape(-1, *shape)
    total = len(patterns)
    finder = SiteFinder.learn(counts, device)

    def batches(rows: np.ndarray) -> list[np.ndarray]:
        size = windows.batch(_BATCH)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def load(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(patterns[rows].astype(np.float32)).to(device)

    nominal = torch.from_numpy(counts.calibration.lattice_inv_A / counts.calibration.pixel_size_inv_A).float().to(device)
    rough = [finder.locate(load(rows)) for rows in batches(np.arange(total))]
    found = torch.cat([r.found for r in rough])
    M = torch.cat([r.G for r in rough]) @ torch.linalg.inv(nominal)
    centre = torch.cat([r.centre for r in rough])
    F = np.full((total, 2, 2), np.nan)
    covariance = np.full((total, 4, 4), np.nan)
    label = np.zeros(total, np.int8)
    on_sample = found.nonzero()[:, 0].cpu().numpy()
    if len(on_sample) == 0:
        return Answer(F.reshape(*scan, 2, 2), covariance.reshape(*scan, 4, 4), label.reshape(scan))

    teachers = on_sample[:: -(-len(on_sample) // _TEACHERS)]
    dictionary = start(counts, load(teachers), M[teachers], centre[teachers], nominal, device)
    encoder = encoders.train(dictionary, M[teachers], centre[teachers], shape, settings.seed)
    dictionary = learned(counts, dictionary, encoder, load, batches(teachers), M, centre)

    answers = []
    for rows in batches(on_sample):
        data = load(rows)
        first = encoders.encode(encoder, dictionary, data, M[rows], centre[rows])
        state, at, entry = solve(dictionary, data, first, 2)
        answers.append((*posterior.mean(data, dictionary, state, at), entry))
    state = State(**{k: torch.cat([getattr(s, k) for s, *_ in answers]) for k in vars(answers[0][0])})
    normal = torch.cat([n for _, n, _ in answers])
    F[on_sample], covariance[on_sample] = deformation(state, normal)
    label[on_sample] = torch.cat([entry for *_, entry in answers]).cpu().numpy() + 1
    lost = ~(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :3]).max(1, initial=0.0) < _WORST_STRAIN)
    F[lost] = covariance[lost] = np.nan
    middle = centre.clone()
    middle[on_sample] = state.centre
    return Answer(
        F.reshape(*scan, 2, 2),
        covariance.reshape(*scan, 4, 4),
        label.reshape(scan),
        middle.cpu().double().numpy().reshape(*scan, 2),
        dictionary=dictionary.pictures().cpu().numpy(),
        found={"entries": len(dictionary.intensity), "model_error": dictionary.error, "patterns_on_sample": len(on_sample)},
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


def solve(dictionary: Dictionary, data: Tensor, first: encoders.Encoded, rounds: int) -> tuple[State, Evaluation, Tensor]:
    """Refine the encoder's answers on the likelihood; returns states, their evaluation and each pattern's entry (n,).

    The code is read from intensities that no entry has pulled at; later rounds hold the intensities to what the entry expects.
    """
    n = len(data)
    prior = dictionary.intensity.mean(0).expand(n, -1)
    free = replace(dictionary, spread=torch.full_like(dictionary.spread, _FREE))
    state, at = refine(data, free, State(first.M, first.centre, prior.clone(), torch.ones(n, device=data.device), prior))
    expected, entry = code(dictionary, state, 1 / at.own, at.normal)
    for _ in range(rounds - 1):
        state, at = refine(data, dictionary, replace(state, prior=expected))
    return state, at, entry


def code(dictionary: Dictionary, state: State, variance: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """The sparse code: intensities (n, K) that the likeliest entry expects at the pattern's counts, and that entry (n,)."""
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    shares = dictionary.intensity[:, 1:] / dictionary.intensity[:, 1:].sum(1, keepdim=True)
    expected = total[:, None] * shares  # (n, E, K - 1)
    spread = variance[:, None, 1:].float() + (dictionary.spread[1:] * expected) ** 2
    odds = -0.5 * ((state.intensity[:, None, 1:] - expected) ** 2 / spread + spread.log()).sum(-1)
    entry = (odds + learn.area_odds(dictionary.area, learn.log_area(state.M, normal))).argmax(1)
    return torch.cat([state.intensity[:, :1], expected[torch.arange(len(entry), device=entry.device), entry]], 1), entry


def learned(
    counts: Counts,
    dictionary: Dictionary,
    encoder: encoders.Encoder,
    load: Callable[[np.ndarray], Tensor],
    batches: list[np.ndarray],
    M: Tensor,
    centre: Tensor,
) -> Dictionary:
    """The dictionary after the teachers, encoded and refined, have been brought back to it."""
    solved = []
    for rows in batches:
        data = load(rows)
        solved.append((rows, *solve(dictionary, data, encoders.encode(encoder, dictionary, data, M[rows], centre[rows]), 1)))
    state = State(**{k: torch.cat([getattr(s, k) for _, s, *_ in solved]) for k in vars(solved[0][1])})
    variance = torch.cat([1 / e.own for _, _, e, _ in solved]).float()
    dictionary, state = learn.code(dictionary, state, variance, torch.cat([e.normal for _, _, e, _ in solved]))
    data = torch.cat([load(rows) for rows in batches])
    position = transformer.positions(state.M, state.centre, dictionary.g)
    probe = torch.from_numpy(counts.probe).to(data.device)
    background = learn.background(data, position, disk_radius_px(counts.calibration), counts.calibration.centre_px, probe)
    dictionary = learn.shape(replace(dictionary, background=background), data, state, 2)
    return replace(dictionary, error=learn.model_error(dictionary, data, state))


def deformation(state: State, normal: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """F (n, 2, 2) = M^-T and the covariance (n, 4, 4) of (exx, eyy, exy, theta), from the information of M, centre and level."""
    M = state.M.double().cpu().numpy()
    F = geometry.inverse_transpose(M)
    of_M = inverse(normal)[:, :4, :4].cpu().numpy()
    # F = M^-T: dF = -M^-T dM^T M^-T, so dF_ij / dM_kl = -F_il F_kj.
    change = -np.einsum("nil,nkj->nijkl", F, F).reshape(-1, 4, 4)
    jacobian = geometry.components_jacobian(F) @ change
    return F, jacobian @ of_M @ np.swapaxes(jacobian, 1, 2)
