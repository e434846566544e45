"""What the dictionary learns from the counts: background, intensities, entries and the shape of the
disks.

Some patterns of the scan, the teachers, are encoded and refined with a first dictionary, and so
brought back to the reference lattice. There they must agree with the dictionary, which is changed
until they do.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ccstae import geometry
from ccstae.machine.device import spread_over
from ccstae.methods.ccstae import (
    diffuse_background,
    dispersion,
    entries,
    expected,
    intensities,
    probe_profile,
    refine,
    spline,
    transformer,
)
from ccstae.methods.ccstae.dictionary import Dictionary, improve, patch_pixels, touching
from ccstae.methods.ccstae.dispersion import Misfit
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.photon_transfer import PhotonTransfer, photon_transfer
from ccstae.methods.ccstae.refine import Evaluation, State, covariance_of_M
from ccstae.methods.ccstae.solve import FREE_SPREAD, solve
from ccstae.methods.ccstae.transformer import Patterns
from ccstae.methods.shared import lattice_sites

_SHAPE_ROUNDS = 2
_SETTLING_STEPS = 4  # of a climb that begins at the maximum of nearly the same likelihood
# Teachers, spread over all, that say where disks lie, what shape they have and what is between
# them. Twice as many leave strain as it is to 0.03 deviations. All teachers say how many entries
# there are.
_SHAPE_TEACHERS = 256
# Fewer would have their own noise taken for the places of the disks.
MIN_PATTERNS_TO_PLACE = 10
# Teachers, spread over all, that say whether disks stray: their mean chi^2 is known to 2 %.
_ASKED_FIRST = 128
_PLACE_ROUNDS = 2  # of moving disks to where the scan has them
_PROBE_COUNTS = 1e5  # what the shape of the vacuum probe is worth
MIN_RELATIVE_INTENSITY = 1e-3  # of a disk, against the mean one
# A disk counts when its centre lies on the detector in this share of the patterns. A beam that
# moves by half the detector over a scan shows some disks in few of them.
MIN_SHARE_ON_DETECTOR = 0.1
MIN_MODEL_ERROR_SIGNIFICANCE = 3.0  # standard errors


def beam_px(nominal: tuple[float, float], found: Tensor, radius_px: float) -> tuple[float, float]:
    """Where the direct beam of a scan lies: at its nominal place (x, y), or at the median of those
    that were found (n, 2) where that is more than a disk's radius away.
    """
    median = found.median(0).values.tolist()
    if math.dist(nominal, median) > radius_px:
        return median[0], median[1]
    return nominal


def start(
    teachers: Tensor,
    first: Encoded,
    nominal: Tensor,
    probe: Tensor,
    centre: tuple[float, float],
    radius_px: float,
    good: Tensor | None = None,
    affine: bool = False,
) -> Dictionary:
    """A first dictionary: the vacuum probe at the nominal lattice, mean intensities, radial
    background.

    Args:
        teachers: counts of some patterns (n, Qy, Qx).
        first: their rough lattices.
        nominal: nominal lattice (2, 2) in pixels, vectors as columns.
        probe: vacuum probe (Qy, Qx), wherever it was recorded.
        centre: direct beam of the scan (x, y) in pixels.
        radius_px: radius of a disk.
        good: True where a pixel tells something, (Qy, Qx); None where all do.
        affine: whether disks are warped with the lattice.

    Returns:
        A dictionary of one entry.
    """
    shape = (teachers.shape[1], teachers.shape[2])
    some = spread_over(len(teachers), _SHAPE_TEACHERS)
    teachers, first = teachers[some], first[some]
    # Nodes that may come onto the detector at its corners, whatever the strain.
    _, farthest = lattice_sites.border_distances_px(centre, shape)
    hk = geometry.lattice_nodes(nominal.cpu().numpy().astype(float), 1.5 * min(farthest))
    g = torch.from_numpy(hk).to(nominal) @ nominal.T
    position = transformer.positions(first.M, first.centre, g)
    often = on_detector(position, shape).float().mean(0) > MIN_SHARE_ON_DETECTOR
    often[0] = True
    g, position = g[often], position[:, often]
    spacing_px = float(g[1:].norm(dim=1).min())
    pixels = patch_pixels(radius_px, spacing_px)
    probe_at = probe_profile.probe_px(probe, centre, radius_px)
    direct = probe_profile.from_probe(probe, probe_at, pixels)
    electrons = float(teachers.sum((1, 2)).mean())
    dose = teachers.sum((1, 2)) / electrons
    clear_px = diffuse_background.clear(radius_px, spacing_px)
    background = diffuse_background.estimate(teachers, position, clear_px, direct, dose, good)
    diffuse = diffuse_background.render(background, position[:, 0], shape)
    window = transformer.square(pixels, teachers.device)
    patch = transformer.patches(position, window, shape, good)
    in_patch = patch.cut(teachers) - dose[:, None, None] * patch.cut(diffuse)
    electrons_of_probe = probe_profile.electrons_of(probe, probe_at, radius_px)
    if electrons_of_probe < min(_PROBE_COUNTS, float(in_patch[:, 0].sum())):
        # The direct beams of the scan show the probe better.
        whole = patch.inside[:, 0].amin(1) > 0
        if whole.any():
            pictures = in_patch[whole, 0].clamp_min(0).unflatten(1, (pixels, pixels))
            shift = patch.shift(position)[whole, 0]
            direct = probe_profile.deconvolved(pictures, pictures.isfinite(), shift)
    in_patch = in_patch.sum(-1)
    seen = dose[:, None] * patch.inside.mean(-1)
    intensity = in_patch.sum(0) / seen.sum(0).clamp_min(0.2 * MIN_SHARE_ON_DETECTOR * len(seen))
    intensity = intensity.clamp_min(MIN_RELATIVE_INTENSITY * float(intensity[1:].mean()))
    return Dictionary(
        g=g,
        direct=direct,
        disk=direct.clone(),  # one of its own: weights are saved tensor by tensor
        intensity=intensity[None],
        background=background,
        centre_px=centre,
        detector_px=shape,
        electrons=electrons,
        # Any size of the cell: one entry has nothing to tell apart.
        area=torch.tensor([[0.0, 1.0]], dtype=torch.float64, device=intensity.device),
        spread=torch.full_like(intensity, FREE_SPREAD),
        pixels=pixels,
        floor=1e-13 * electrons,
        affine=affine,
        touching=touching(radius_px, spacing_px),
    )


def on_detector(position: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which disks (n, K) have their centres (n, K, 2) on the detector (Qy, Qx)."""
    last = position.new_tensor([shape[1] - 1, shape[0] - 1])
    return ((position > 0) & (position < last)).all(-1)


def teach(
    dictionary: Dictionary,
    data: Tensor,
    first: Encoded,
    radius_px: float,
    batch: int,
    good: Tensor | None,
    without: tuple[str, ...] = (),
) -> tuple[Dictionary, PhotonTransfer]:
    """The dictionary after the teachers are refined with it and brought back to the reference.

    Args:
        dictionary: the first one, from `start`.
        data: counts of the teachers (n, Qy, Qx).
        first: their lattices as the encoder gives them.
        radius_px: radius of a disk.
        batch: teachers to refine at a time.
        good: True where a pixel tells something, (Qy, Qx); None where all do.
        without: what is not to be learned: more than one of the "entries", the "background" under
            the direct beam, the "shape" of the disks.

    Returns:
        The dictionary with its entries, background, shape of the disks and model error, and how the
        readings vary.
    """
    solutions = [
        solve(dictionary, data[part], first[part], rounds=1, good=good)
        for part in torch.arange(len(data)).split(batch)
    ]
    state = State.join([one.state for one in solutions])
    variance = torch.cat([1 / one.at.intensity_information for one in solutions]).float()
    covariance = covariance_of_M(torch.cat([one.at.information for one in solutions]))
    max_entries = 1 if "entries" in without else intensities.MAX_ENTRIES
    position = disk_places(dictionary, state)
    shown = on_detector(position, dictionary.detector_px)
    dictionary, state = entries.learn_code(
        dictionary, state, variance, covariance, max_entries, shown
    )
    some = spread_over(len(data), _SHAPE_TEACHERS)
    data, state, position = data[some], state[some], position[some]
    spacing_px = float(dictionary.g[1:].norm(dim=1).min())
    between = data
    if dictionary.touching:  # no place is clear of all disks
        between = data - expected.with_disks(dictionary, state, torch.zeros_like(data))
    background = diffuse_background.estimate(
        between,
        position,
        diffuse_background.clear(radius_px, spacing_px),
        dictionary.direct,
        dictionary.dose(data),
        good,
        cusp="background" not in without and not dictionary.touching,
    )
    dictionary = replace(dictionary, background=background)
    patterns = dictionary.patterns(
        data, state.centre, state.background_scale, state.intensity, good
    )
    # Where disks nearly touch, what is left of the next ones would be learned as their rim.
    if "shape" not in without and not dictionary.touching:
        dictionary = learn_shape(dictionary, patterns, state, _SHAPE_ROUNDS)
    readings = photon_transfer(dictionary, patterns, state)
    dictionary = replace(dictionary, error=model_error(dictionary, patterns, state))
    if not dictionary.affine:
        dictionary = learn_strays(dictionary, patterns, state, batch)
    return dictionary, readings


def learn_strays(
    dictionary: Dictionary, patterns: Patterns, state: State, batch: int
) -> Dictionary:
    """The dictionary with each disk where the scan has it, and how far disks stray from there.

    Structure inside a disk that is the same at every position, or a distorted camera, puts the disk
    off the lattice by the same step everywhere. Such a step is no error of the strain, which is
    relative; taken for a chance stray it would weigh the disk down. The step of a disk is the mean
    over the patterns, by their information (`dispersion.common_steps`). It leaves the mean lattice
    as it is, since the scores of all disks add to zero. No disk moves where the model holds.

    Args:
        dictionary: all else that was learned.
        patterns: the n teachers.
        state: their refined parameters.
        batch: teachers to refine at a time.
    """
    some = spread_over(len(patterns), _ASKED_FIRST)
    _, _, misfit = settled(dictionary, patterns[some], state[some], batch)
    if not dispersion.is_beyond_counts(misfit):
        return dictionary
    state, at, misfit = settled(dictionary, patterns, state, batch)
    if len(patterns) < MIN_PATTERNS_TO_PLACE:
        return replace(dictionary, stray_px=dispersion.causes(misfit)[0])
    for _ in range(_PLACE_ROUNDS):
        step = dispersion.common_steps(at)
        dictionary = replace(dictionary, g=dictionary.g + step.to(dictionary.g))
        state, at, _ = settled(dictionary, patterns, state, batch)
    # Structure that is the same everywhere is now in the places of the disks.
    error = model_error(dictionary, patterns, state, beyond_common=True)
    dictionary = replace(dictionary, error=min(error, dictionary.error))
    _, _, misfit = settled(dictionary, patterns, state, batch)
    return replace(dictionary, stray_px=dispersion.causes(misfit)[0])


def settled(
    dictionary: Dictionary, patterns: Patterns, state: State, batch: int
) -> tuple[State, Evaluation, Misfit]:
    """The n teachers at the maximum of their likelihood, from states near it, and what their disks
    say there.
    """
    states, evaluations, misfits = [], [], []
    for part in torch.arange(len(patterns)).split(batch):
        those = dictionary.patterns(
            patterns.counts[part],
            state.centre[part],
            patterns.level[part],
            state.intensity[part],
            patterns.good,
        )
        there, at = refine.refine(those, dictionary, state[part], _SETTLING_STEPS)
        states.append(there)
        evaluations.append(at)
        misfits.append(dispersion.misfit(dictionary, at))
    return State.join(states), Evaluation.join(evaluations), Misfit.join(misfits)


def disk_places(dictionary: Dictionary, state: State) -> Tensor:
    """Where the disks of patterns lie, with their strays, (n, K, 2) in pixels."""
    return transformer.positions(state.M, state.centre, dictionary.g) + state.stray


def learn_shape(
    dictionary: Dictionary, patterns: Patterns, state: State, rounds: int
) -> Dictionary:
    """Learn the shape of the diffracted disks from aligned patterns.

    The shape of the direct beam, which the vacuum probe shows, is a prior worth `_PROBE_COUNTS`.
    A disk of few counts lies where the fit that aligned it put those counts, and would teach a
    shape too sharp.

    Args:
        dictionary: the dictionary so far.
        patterns: the n patterns.
        state: their refined parameters.
        rounds: updates.

    Returns:
        The dictionary with the new shape.
    """
    for _ in range(rounds):
        position = disk_places(dictionary, state)
        window = transformer.square(dictionary.pixels, position.device)
        patch = patterns.windows(position, window)
        whole = patch.inside.amin(-1) > 0  # a disk cut by the border would teach its border
        whole[:, 0] = False
        if not whole.any():
            break
        shift, intensity = patch.shift(position)[whole], state.intensity[whole]
        unit = spline.render(dictionary.disk, shift, dictionary.pixels)
        scale = state.background_scale[:, None, None]
        diffuse = (scale * patch.cut(patterns.background))[whole].reshape(unit.shape)
        model = intensity[:, None, None] * unit + diffuse + dictionary.floor
        patches = patch.cut(patterns.counts)[whole].reshape(unit.shape)
        dictionary = improve(dictionary, patches, model, intensity, shift, _PROBE_COUNTS)
    return dictionary


def model_error(
    dictionary: Dictionary, patterns: Patterns, state: State, beyond_common: bool = False
) -> float:
    """What aligned patterns leave beyond Poisson's variance: root mean square over the brightest
    pixel of the disk.

    It is zero where the noise of the counts hides it, below three standard errors. Only pixels that
    expect a count take part: in emptier ones single counts beside an ill located disk would decide.
    At high dose the error is strain that changes within the probe, the tails of neighbours and
    whatever else the dictionary cannot express. A pixel then weighs by both variances.

    Args:
        dictionary: what the patterns are made of.
        patterns: the n patterns.
        state: their refined parameters.
        beyond_common: whether what all patterns leave alike in a disk is no error. It moves the
            disk by the same step everywhere, which its place in the dictionary allows for.
    """
    position = disk_places(dictionary, state)[:, 1:]
    patch = patterns.windows(position, dictionary.offsets)
    images, expansion = dictionary.table(patch.shift(position).reshape(-1, 2), 1)
    unit = (expansion[:, :1] @ images).reshape(patch.index.shape)
    disk = state.intensity[:, 1:, None] * unit
    diffuse = state.background_scale[:, None, None] * patch.cut(patterns.background)
    disks = expected.all_disks(dictionary, state, patch) if dictionary.touching else disk
    model = disks + diffuse + dictionary.floor
    used = patch.inside * (model > 1)
    residual = patch.cut(patterns.counts) - model
    if beyond_common and len(patterns) > 1:
        share = (residual * used).sum(0) / (state.intensity[:, 1:, None] * used).sum(0).clamp_min(1)
        residual = residual - state.intensity[:, 1:, None] * share
        residual = residual * (len(patterns) / (len(patterns) - 1)) ** 0.5
    squares = residual**2
    beyond = float(((squares - model) * used).sum(dtype=torch.float64))
    # (d - m)^2 of Poisson counts has the variance m + 2 m^2.
    error = float(((model + 2 * model**2) * used).sum(dtype=torch.float64)) ** 0.5
    if beyond <= MIN_MODEL_ERROR_SIGNIFICANCE * error:
        return 0.0
    brightest = disk.amax(2, keepdim=True) * used
    # Summed before they are divided, so that faint disks do not decide.
    return math.sqrt(beyond / float((brightest**2).sum(dtype=torch.float64)))
