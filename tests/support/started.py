"""Patterns made by hand, with a dictionary and states to begin at."""

from dataclasses import replace

import numpy as np
import torch
from synthetic import Model, errors, random_deformations

from ccstae import geometry
from ccstae.methods.ccstae import encoder as encoders
from ccstae.methods.ccstae import learn, refine, spline


def smooth_profile(samples=61, dtype=torch.float64):
    at = (torch.arange(samples, dtype=dtype) - samples // 2) / spline.OVERSAMPLING
    r = torch.hypot(at[:, None], 1.1 * at[None, :] + 0.1)
    return 0.5 * torch.erfc((r - 4.0) / 0.9)


def scene(n=24, seed=0, background=0.25, electrons=1e5):
    """Counts of a small scan of ideal patterns."""
    model = Model()
    F = random_deformations((4, n // 4), seed=seed)
    return model, F, model.counts(F, electrons, background, seed=seed)


def dictionary_of(model, counts, M, centre):
    nominal = torch.from_numpy(model.G0 / model.pixel_size_inv_A).float()
    patterns = torch.from_numpy(counts.counts.reshape(-1, 128, 128).astype(np.float32))
    first, probe = encoders.Encoded(M, centre), torch.from_numpy(counts.probe)
    return learn.start(
        patterns, first, nominal, probe, counts.calibration.centre_px, model.radius_px
    ), patterns


def started(n, background, electrons=1e5):
    """Patterns, a first dictionary, and states at the true lattices."""
    model, F, counts = scene(n, background=background, electrons=electrons)
    M = torch.from_numpy(geometry.inverse_transpose(F.reshape(-1, 2, 2))).float()
    centre = torch.full((n, 2), 64.0)
    dictionary, patterns = dictionary_of(model, counts, M, centre)
    state = state_at(dictionary, M, centre)
    return patterns_at(dictionary, patterns, state), dictionary, state


def state_at(dictionary, M, centre):
    """States at these lattices that are the dictionary's in all else."""
    prior = dictionary.intensity.expand(len(M), -1).clone()
    stray = torch.zeros(*prior.shape, 2)
    return refine.State(M, centre, prior.clone(), torch.ones(len(M)), prior, stray)


def patterns_at(dictionary, counts, state, good=None):
    """Patterns whose background, level and model error are those of the states."""
    return dictionary.patterns(counts, state.centre, state.background_scale, state.intensity, good)


def recorded(model, F, electrons, background, shift_px=None, seed=0):
    """Poisson counts of a scan whose beams lie `shift_px` (Ry, Rx, 2) off their nominal place, and
    their background with them.
    """
    shift_px = np.zeros((*F.shape[:2], 2)) if shift_px is None else shift_px
    y, x = np.mgrid[: model.px, : model.px] - model.px // 2
    scale = model.background.max()  # of the Lorentzian at its centre
    mean = np.empty((*F.shape[:2], model.px, model.px))
    for at in np.ndindex(*F.shape[:2]):
        r = np.hypot(x - shift_px[at][0], y - shift_px[at][1]) / model.px
        mean[at] = (1 - background) * model.pattern(F[at], tuple(shift_px[at]), oversample=3)
        mean[at] += background * scale / (1 + (r / 0.01) ** 2)
    counts = np.random.default_rng(seed).poisson(electrons * mean).astype(np.uint32)
    return replace(model.counts(F[:0], 1.0), counts=counts)


def over_stated(answer, F):
    """Root mean square of the errors of a map over their stated deviations."""
    stated = np.sqrt(np.diagonal(answer.covariance, axis1=-2, axis2=-1))
    return float(np.sqrt(((errors(answer.F, F) / stated) ** 2).mean()))
