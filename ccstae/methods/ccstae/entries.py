"""The sparse code: how many entries the dictionary has, and which one a pattern belongs to.

An entry is a set of disk intensities. The entry of a pattern is read from its intensities and from
the size of its cell, since materials differ in both. Cells of two sizes alone are no two entries,
so that grains of different strain are not taken for different materials: their intensities must
differ, by more than strain changes them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ccstae.methods.ccstae.cell_area import (
    LogArea,
    area_odds,
    areas,
    is_of_one_orientation,
    log_area,
    told_apart_by_area,
)
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.intensities import Relative, background_variance, cluster
from ccstae.methods.ccstae.refine import State

MIN_SPREAD = 0.02  # relative; what strain alone does to the intensities
MAX_SPREAD = 0.5


def learn_code(
    dictionary: Dictionary,
    state: State,
    variance: Tensor,
    covariance: Tensor,
    max_entries: int,
    on_detector: Tensor,
) -> tuple[Dictionary, State]:
    """Learn the entries, and the spread of the intensities about them.

    The spread of a disk is 1.5 times the robust relative deviation from its entry beyond that of
    the counts, sqrt(median((A / a - 1)^2 - v / a^2)). It lies from 3 % to 75 %.

    Args:
        dictionary: the dictionary so far.
        state: the teachers, n patterns.
        variance: of their intensities, (n, K).
        covariance: of their M, (n, 4, 4).
        max_entries: most entries to learn.
        on_detector: which disks a pattern shows, (n, K).

    Returns:
        The dictionary, and the states with the intensities that their entries expect as prior.
    """
    intensities = Relative.of(state.intensity[:, 1:], variance[:, 1:])
    centre, odds = cluster(intensities, max_entries)
    measured = log_area(state.M, covariance)
    area = areas(odds, measured)
    if len(centre) == 1 and max_entries > 1 and is_of_one_orientation(state.M):
        two = told_apart_by_area(intensities, measured)
        if two is not None:
            centre, odds, area = two
    label = likeliest(odds, area, measured)
    centre = centre.to(state.intensity.dtype)
    # An entry that all its patterns leave for another is dropped.
    used = (torch.bincount(label, minlength=len(centre)) > 0).nonzero()[:, 0]
    centre, area, label = centre[used], area[used], torch.searchsorted(used, label)
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    prior = torch.cat([state.intensity[:, :1], total * centre[label]], 1)
    safe = prior.clamp_min(1e-6)
    relative = (state.intensity / safe - 1) ** 2 - variance / safe**2
    relative = relative.masked_fill(~on_detector, torch.nan)
    deviation = (
        relative.nanmedian(0)
        .values.nan_to_num(1.0)
        .clamp_min(MIN_SPREAD**2)
        .sqrt()
        .clamp_max(MAX_SPREAD)
    )
    spread = deviation * 1.5
    spread[0] = 0.5  # the direct beam, which no entry predicts
    mean = torch.stack([(state.intensity[label == e]).mean(0) for e in range(len(centre))])
    learned = replace(dictionary, intensity=mean, spread=spread, area=area)
    return learned, replace(state, prior=prior)


def likeliest(odds: Tensor, area: Tensor, measured: LogArea) -> Tensor:
    """The entry (n,) that intensities, by their log odds (n, E), and the size of the cell speak for
    together; `area` is that of the dictionary, (E, 2).
    """
    return (odds + area_odds(area, measured)).argmax(1)


def expected_intensity(
    dictionary: Dictionary, state: State, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Intensities that each entry expects at the pattern's counts, and the log odds of the entries.

    Entry e expects a_k = (sum of the pattern's diffracted intensities) x (share of disk k in e).
    The log odds are those of normal laws, -1/2 sum_k ((A_k - a_k)^2 / v_k + log v_k). The variance
    v_k is a_k, plus the background's part of the variance of A_k, plus the square of the learned
    spread.

    Args:
        dictionary: the entries.
        state: the intensities A of n patterns.
        variance: of these, (n, K).

    Returns:
        Intensities of the diffracted disks (n, E, K - 1), and log odds (n, E).
    """
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    shares = dictionary.intensity[:, 1:] / dictionary.intensity[:, 1:].sum(1, keepdim=True)
    expected = total[:, None] * shares
    v = (
        expected
        + background_variance(state.intensity, variance)[:, None, 1:].float()
        + (dictionary.spread[1:] * expected) ** 2
    )
    z2 = (state.intensity[:, None, 1:] - expected) ** 2 / v
    return expected, -0.5 * (z2 + v.log()).sum(-1)
