"""What a scan teaches of its lattices: the mixture by expectation maximisation over a sample, how
its counts scatter, and how many of its patterns hold a lattice.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.stored import Patterns
from ccstae.machine.device import spread_over
from ccstae.methods.shared import windows
from ccstae.methods.shared.beams import Beams
from ccstae.methods.shared.site_evidence import Mixture, Seen, scatter_in_gaps
from ccstae.methods.shared.site_tables import boxes

ROUNDS = 8
ROUNDS_OF_SHARE = 50  # of the same for the share of patterns with a lattice alone
# Box sums that scatter less than this beyond Poisson's law obey it: few gaps a pattern and the rims
# of disks a little off their places make 1.5. Pixels tell more closely.
MIN_SCATTER = 2.0
PIXEL_SCATTER_TOLERANCE = 1.3
SCATTER_SAMPLE = 64
MAX_COVER = 0.6
MAX_DARKNESS = 0.98  # share of what is round it that a gap lacks; the rest is for what was missed


def taught(
    mixture: Mixture,
    beams: Beams,
    seen: Seen,
    patterns: Patterns,
    rows: NDArray[np.int64],
    teach: bool,
) -> Mixture:
    """The mixture of a sample, where it is to be taught, with the scatter of its box sums and the
    share of its patterns that hold a lattice.

    Args:
        mixture: what is known before.
        beams: of the scan.
        seen: what the sample shows about them.
        patterns: of the scan.
        rows: the sample, in scan order.
        teach: whether contrasts and weights are learned too.
    """
    taught = _maximised(mixture, seen.on, seen.sites) if teach else mixture
    taught = _measured(taught, beams, seen, patterns, rows)
    if taught.scatter > 1 and teach:
        taught = _maximised(taught, seen.on, seen.sites)
    evidence = taught.evidence_of(seen)
    share, least = 0.5, 0.5 / (1 + len(evidence))
    for _ in range(ROUNDS_OF_SHARE if len(evidence) else 0):
        share = float((evidence + math.log(share / (1 - share))).sigmoid().mean())
        share = min(max(share, least), 1 - least)
    return replace(taught, share=share, odds_per_count=_odds_per_count(taught, seen))


def _odds_per_count(mixture: Mixture, seen: Seen) -> float:
    """Median over patterns with a lattice of the log odds of the likeliest candidate, over the
    counts of the direct beam; 0 where no pattern has one.
    """
    odds = mixture.odds(seen.on, seen.sites)
    lattice = (mixture.evidence(odds) > mixture.least_evidence()) & (seen.bright > 0)
    ratio = odds.amax(1)[lattice] / mixture.scatter / seen.bright[lattice]
    return float(ratio.median()) if len(ratio) else 0.0


def _measured(
    mixture: Mixture, beams: Beams, seen: Seen, patterns: Patterns, rows: NDArray[np.int64]
) -> Mixture:
    """The mixture with the scatter of the counts between the disks of some patterns, at their
    likeliest lattices: that of box sums, and that of pixels against their neighbours. Both are
    medians over the patterns.
    """
    tables = mixture.tables
    some = spread_over(len(rows), SCATTER_SAMPLE)
    on, sites, centre, rows = seen.on[some], seen.sites[some], seen.centre[some], rows[some]
    G = tables.G[mixture.likeliest(on, sites)]

    def of_chunk(chunk: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        left, right = chunk[..., :-1], chunk[..., 1:]
        squares, both = (
            tables.in_gaps(
                beams,
                boxes(torch.nn.functional.pad(image, (0, 1)), tables.gap_radius),
                centre[part],
                G[part],
            )[0]
            for image in ((right - left) ** 2, right + left)
        )
        sums = boxes(chunk, tables.gap_radius)
        of_boxes = scatter_in_gaps(tables, beams, sums, centre[part], G[part])
        return of_boxes, squares.sum(1) / both.sum(1)

    of_boxes, of_pixels = (
        values[values.isfinite()]
        for values in windows.over_scan(of_chunk, patterns, str(tables.G.device), rows)
    )
    scatter = float(of_boxes.median()) if len(of_boxes) else 1.0
    pixels = float(of_pixels.median()) if len(of_pixels) else 1.0
    # Tails of disks and other smooth structure, which many counts show, scatter the boxes alone.
    poisson = 1 / PIXEL_SCATTER_TOLERANCE < pixels < PIXEL_SCATTER_TOLERANCE
    return replace(mixture, scatter=scatter if scatter >= MIN_SCATTER else 1.0, poisson=poisson)


def _maximised(mixture: Mixture, on: Tensor, sites: Tensor) -> Mixture:
    """Expectation maximisation over a sample (N patterns, from `SiteTables.count`): orientations
    held, share without lattice, I and b of each ring.
    """
    N, K, _ = on.shape
    tables = mixture.tables
    around = tables.around(on, sites)
    even = tables.even(sites, around)
    # The share c of a ring's circumference that its disks cover, and so of I that `around` holds.
    # Boxes between disks that nearly touch hold parts of both, which count as b.
    length = torch.linalg.vector_norm(tables.sites @ tables.G[0].T, dim=-1)
    of_site = 2 * tables.radius / (2 * math.pi * length)
    cover = (of_site[:, None] * tables.ring).sum(0).clamp(max=MAX_COVER)
    log_prior = torch.full((K,), -math.log(K), device=on.device)
    no_lattice = 0.0  # share of such patterns; let in once I and b are roughly known
    background = around.mean(0)  # b, (scales, R)
    intensity = background[tables.scales // 2]  # I, (R,)
    intensity = torch.where(tables.dark, -intensity / 2, intensity)
    learned = mixture
    for turn in range(ROUNDS):
        floor = 1e-3 * intensity.abs() + torch.finfo(on.dtype).tiny
        contrast = intensity / torch.maximum(background, floor)  # (scales, R)
        contrast = contrast.clamp_min(-MAX_DARKNESS)
        on_gain, ring_gain = torch.log1p(contrast), -torch.log1p(cover * contrast) / cover
        learned = replace(
            mixture,
            on_gain=on_gain.repeat(tables.turns, 1),
            ring_gain=ring_gain.repeat(tables.turns, 1),
            log_prior=log_prior,
        )
        odds = learned.log_odds(on, even) / mixture.scatter + log_prior
        if turn >= ROUNDS // 2:
            without = odds.new_full((N, 1), math.log(no_lattice))
            odds = torch.cat([odds + math.log1p(-no_lattice), without], 1)
        share = odds.softmax(1)[:, :K]
        lattice = share.sum(1)
        mean = torch.einsum("n,nsr->sr", lattice, around) / lattice.sum().clamp_min(1e-6)
        above = on - sites * mean.repeat(tables.turns, 1)
        number = torch.einsum("nk,nkr->r", share, sites).clamp_min(1e-6)
        intensity = torch.einsum("nk,nkr->r", share, above) / number
        intensity = intensity / (1 - cover)
        intensity = torch.where(tables.dark, intensity.clamp_max(0), intensity.clamp_min(0))
        background = (mean - cover * intensity).clamp_min(0)
        # One pattern's worth of weight is spread evenly, so that an orientation that the sample
        # lacks stays possible.
        prior = share.sum(0) + 1 / K
        log_prior = (prior / prior.sum()).log()
        no_lattice = min(max(1 - float(lattice.mean()), 0.01), 0.99)
    return learned
