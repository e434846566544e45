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
from ccstae.methods.ccstae import diffuse_background, entries, spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary, from_probe, improve, patch_pixels
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import State, covariance_of_M
from ccstae.methods.ccstae.solve import FREE_SPREAD, solve
from ccstae.methods.shared import beams, sites

_SHAPE_ROUNDS = 2
_PROBE_COUNTS = 1e5  # what the shape of the vacuum probe is worth
MIN_RELATIVE_INTENSITY = 1e-3  # of a disk, against the mean one
MIN_MODEL_ERROR_SIGNIFICANCE = 3.0  # standard errors


def beam_px(nominal: tuple[float, float], found: Tensor, radius_px: float) -> tuple[float, float]:
    """Where the direct beam of a scan lies: at its nominal place (x, y), or at the median of those
    that were found (n, 2) where that is more than a disk's radius away.
    """
    median = found.median(0).values.tolist()
    if math.dist(nominal, median) > radius_px:
        return median[0], median[1]
    return nominal


def probe_at(probe: Tensor, centre: tuple[float, float], radius_px: float) -> Tensor:
    """The vacuum probe (Qy, Qx), brought to the direct beam (x, y) by whole pixels where it was
    recorded elsewhere: less than half as many electrons there as in the brightest place.
    """
    sums = beams.box_sums(probe[None], radius_px)
    x, y = (
        min(max(round(place), 0), size - 1)
        for place, size in zip(centre, (probe.shape[1], probe.shape[0]), strict=True)
    )
    if 2 * sums[0, y, x] >= sums.max():
        return probe
    beam = beams.direct_beam(probe[None], sums, radius_px)[0].round().long().tolist()
    return probe.roll((y - beam[1], x - beam[0]), (0, 1))


def start(
    teachers: Tensor,
    first: Encoded,
    nominal: Tensor,
    probe: Tensor,
    centre: tuple[float, float],
    radius_px: float,
    affine: bool = False,
) -> Dictionary:
    """A first dictionary: the vacuum probe at the nominal lattice, mean intensities, radial
    background.

    Args:
        teachers: counts of some patterns (n, Qy, Qx).
        first: their rough lattices.
        nominal: nominal lattice (2, 2) in pixels, vectors as columns.
        probe: vacuum probe (Qy, Qx).
        centre: nominal direct beam (x, y) in pixels.
        radius_px: radius of a disk.
        affine: whether disks are warped with the lattice.

    Returns:
        A dictionary of one entry.
    """
    shape = (teachers.shape[1], teachers.shape[2])
    # Nodes that may come onto the detector at its corners, whatever the strain.
    _, farthest = sites.border_distances_px(centre, shape)
    hk = geometry.lattice_nodes(nominal.cpu().numpy().astype(float), 1.5 * min(farthest))
    g = torch.from_numpy(hk).to(nominal) @ nominal.T
    # A disk counts when its centre lies on the detector for most of the scan.
    position = transformer.positions(first.M, first.centre, g)
    last = position.new_tensor([shape[1] - 1, shape[0] - 1])
    on_detector = ((position > 0) & (position < last)).all(-1)
    mostly = on_detector.float().mean(0) > 0.5
    g, position = g[mostly], position[:, mostly]
    profile = from_probe(probe, centre, radius_px)
    diffuse = diffuse_background.estimate(teachers, position, radius_px, centre, probe)
    pixels = patch_pixels(radius_px)
    patch = transformer.patches(position, transformer.square(pixels, teachers.device), shape)
    in_patch = (patch.cut(teachers) - patch.cut(diffuse)).sum(-1)
    intensity = (in_patch / patch.inside.mean(-1).clamp_min(0.2)).mean(0)
    intensity = intensity.clamp_min(MIN_RELATIVE_INTENSITY * float(intensity[1:].mean()))
    return Dictionary(
        g=g,
        direct=profile,
        disk=profile,
        intensity=intensity[None],
        background=diffuse,
        centre_px=centre,
        # Any size of the cell: one entry has nothing to tell apart.
        area=torch.tensor([[0.0, 1.0]], dtype=torch.float64, device=intensity.device),
        spread=torch.full_like(intensity, FREE_SPREAD),
        pixels=pixels,
        floor=1e-13 * float(teachers.sum((1, 2)).mean()),
        affine=affine,
    )


def teach(
    dictionary: Dictionary,
    data: Tensor,
    first: Encoded,
    probe: Tensor,
    centre: tuple[float, float],
    radius_px: float,
    batch: int,
    without: tuple[str, ...] = (),
) -> Dictionary:
    """The dictionary after the teachers are refined with it and brought back to the reference.

    Args:
        dictionary: the first one, from `start`.
        data: counts of the teachers (n, Qy, Qx).
        first: their lattices as the encoder gives them.
        probe: vacuum probe (Qy, Qx).
        centre: nominal direct beam (x, y) in pixels.
        radius_px: radius of a disk.
        batch: teachers to refine at a time.
        without: what is not to be learned: more than one of the "entries", the "background" under
            the direct beam, the "shape" of the disks.

    Returns:
        The dictionary with its entries, background, shape of the disks and model error.
    """
    states, evaluations = [], []
    for part in torch.arange(len(data)).split(batch):
        state, at, _ = solve(dictionary, data[part], first[part], rounds=1)
        states.append(state)
        evaluations.append(at)
    state = State.join(states)
    variance = torch.cat([1 / at.intensity_information for at in evaluations]).float()
    covariance = covariance_of_M(torch.cat([at.information for at in evaluations]))
    max_entries = 1 if "entries" in without else entries.MAX_ENTRIES
    dictionary, state = entries.learn_code(dictionary, state, variance, covariance, max_entries)
    position = transformer.positions(state.M, state.centre, dictionary.g)
    diffuse = diffuse_background.estimate(
        data, position, radius_px, centre, probe, cusp="background" not in without
    )
    dictionary = replace(dictionary, background=diffuse)
    if "shape" not in without:
        dictionary = learn_shape(dictionary, data, state, _SHAPE_ROUNDS)
    return replace(dictionary, error=model_error(dictionary, data, state))


def learn_shape(dictionary: Dictionary, counts: Tensor, state: State, rounds: int) -> Dictionary:
    """Learn the shape of the diffracted disks from aligned patterns.

    The shape of the direct beam, which the vacuum probe shows, is a prior worth `_PROBE_COUNTS`.
    A disk of few counts lies where the fit that aligned it put those counts, and would teach a
    shape too sharp.

    Args:
        dictionary: the dictionary so far.
        counts: patterns (n, Qy, Qx).
        state: their refined parameters.
        rounds: updates.

    Returns:
        The dictionary with the new shape.
    """
    for _ in range(rounds):
        position = transformer.positions(state.M, state.centre, dictionary.g)
        window = transformer.square(dictionary.pixels, counts.device)
        patch = transformer.patches(position, window, (counts.shape[-2], counts.shape[-1]))
        whole = patch.inside.amin(-1) > 0  # a disk cut by the border would teach its border
        whole[:, 0] = False
        shift, intensity = patch.shift(position)[whole], state.intensity[whole]
        unit = spline.render(dictionary.disk, shift, dictionary.pixels)
        scale = state.background_scale[:, None, None]
        diffuse = (scale * patch.cut(dictionary.background))[whole].reshape(unit.shape)
        model = intensity[:, None, None] * unit + diffuse + dictionary.floor
        patches = patch.cut(counts)[whole].reshape(unit.shape)
        dictionary = improve(dictionary, patches, model, intensity, shift, _PROBE_COUNTS)
    return dictionary


def model_error(dictionary: Dictionary, counts: Tensor, state: State) -> float:
    """What aligned patterns leave beyond Poisson's variance: root mean square over the brightest
    pixel of the disk.

    It is zero where the noise of the counts hides it, below three standard errors. Only pixels that
    expect a count take part: in emptier ones single counts beside an ill located disk would decide.
    At high dose the error is strain that changes within the probe, the tails of neighbours and
    whatever else the dictionary cannot express. A pixel then weighs by both variances.

    Args:
        dictionary: what the patterns are made of.
        counts: patterns (n, Qy, Qx).
        state: their refined parameters.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)[:, 1:]
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    images, expansion = dictionary.table(patch.shift(position).reshape(-1, 2), 1)
    unit = (expansion[:, :1] @ images).reshape(patch.index.shape)
    disk = state.intensity[:, 1:, None] * unit
    diffuse = state.background_scale[:, None, None] * patch.cut(dictionary.background)
    model = disk + diffuse + dictionary.floor
    used = patch.inside * (model > 1)
    squares = (patch.cut(counts) - model) ** 2
    beyond = float(((squares - model) * used).sum(dtype=torch.float64))
    # (d - m)^2 of Poisson counts has the variance m + 2 m^2.
    error = float(((model + 2 * model**2) * used).sum(dtype=torch.float64)) ** 0.5
    if beyond <= MIN_MODEL_ERROR_SIGNIFICANCE * error:
        return 0.0
    brightest = disk.amax(2, keepdim=True) * used
    # Summed before they are divided, so that faint disks do not decide.
    return math.sqrt(beyond / float((brightest**2).sum(dtype=torch.float64)))
