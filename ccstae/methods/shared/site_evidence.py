"""Whether a pattern holds a lattice, and which: the odds of a mixture.

Counts in a box of a disk's area are Poisson with mean b + I on a site and b beside it. A ring of m
sites shares b and I, and covers the share c of its circumference. The ring holds m a / c electrons
in all, with a the mean box sum round it. Given that number, the log odds of orientation k, with n_k
counts on its sites, against no lattice are

    L_k = sum_rings n_k log(1 + I / b) - (m a / c) log(1 + c I / b).

They ask where the electrons lie, not how many there are, so neither vacuum nor a diffuse background
looks like a lattice.

The weights of the mixture are the orientations that the scan does hold. They steady the patterns
that hold too few electrons to say by themselves.

What a detector makes without electrons obeys no such law. The boxes in the gaps between disks,
which hold no disk whatever the lattice, tell how counts scatter: their variance over mean divides
the log odds. A pattern must also show more than two disks, on more than one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from ccstae.methods.shared.beams import Beams
from ccstae.methods.shared.site_tables import SiteTables, at_sites

# Log of the odds, lattice against none, below which a pattern has no answer: 20 to 1, "strong"
# evidence (H. Jeffreys, Theory of Probability (1961)).
MIN_EVIDENCE = 3.0
# Rings' contrasts are learned from the patterns that they judge. Counts that obey Poisson's law pay
# for it by the mixture. A fixed pattern is the same in all, so that elsewhere every ring costs this
# much evidence, and all of it must be three times as strong.
EVIDENCE_PER_RING = 0.5
# Evidence that gaps between touching disks must have beyond that of disks: no place is bare there
# to tell how a smooth fixed pattern scatters.
TOUCHING_EVIDENCE = 100.0
# Boxes between disks, less one for each mean, that tell of one pattern how box sums scatter.
MIN_GAPS = 3
# Standard deviations of the background beyond which disks are seen on a line through the beam.
MIN_DEVIATIONS = 3.0
# Of what the strongest line holds, that the others hold where they have disks.
MIN_REST_SHARE = 0.01


@dataclass(frozen=True)
class Seen:
    """What n patterns show about their beams."""

    pixel: Float[Tensor, "n 2"]  # the brightest box
    bright: Float[Tensor, " n"]  # its box sum
    centre: Float[Tensor, "n 2"]  # of the beam, x and y in pixels
    on: Float[Tensor, "n K R"]  # counts on the sites of each candidate, by ring
    sites: Float[Tensor, "n K R"]  # how many of them tell something


@dataclass(frozen=True)
class Mixture:
    """Contrasts of the rings, weights of the candidates, and how counts scatter, of a scan."""

    tables: SiteTables
    on_gain: Float[Tensor, "K R"]  # log(1 + I / b)
    ring_gain: Float[Tensor, "K R"]  # -log(1 + c I / b) / c
    log_prior: Float[Tensor, " K"]  # of the candidates, normalised
    share: float = 0.5  # of the scan's patterns that hold a lattice
    scatter: float = 1.0  # variance over mean of its box sums
    poisson: bool = True  # whether its counts obey Poisson's law
    # median log odds of its lattices over the counts of their direct beams; 0 where it is unknown
    odds_per_count: float = 0.0

    @classmethod
    def blank(cls, tables: SiteTables) -> Self:
        """That of an instrument, which has learned nothing yet."""
        gain = torch.zeros(len(tables.G), tables.ring.shape[1], device=tables.G.device)
        return cls(tables, gain, gain, torch.zeros(len(tables.G), device=tables.G.device))

    def log_odds(self, on: Tensor, even: Tensor) -> Tensor:
        """L_k, (B, K)."""
        return (on * self.on_gain + even * self.ring_gain).sum(-1)

    def odds(self, on: Tensor, sites: Tensor) -> Tensor:
        """The same (B, K) of `SiteTables.count`."""
        return self.log_odds(on, self.tables.even(sites, self.tables.around(on, sites)))

    def likeliest(self, on: Tensor, sites: Tensor) -> Tensor:
        """The likeliest candidate (B,) of patterns."""
        return (self.odds(on, sites) / self.scatter + self.log_prior).argmax(-1)

    def evidence(self, odds: Tensor) -> Tensor:
        """Log odds (B,) of any lattice against none.

        They take all orientations for equally likely, since a mixture learned from a scan of vacuum
        has learned its noise.
        """
        return (odds / self.scatter).logsumexp(-1) - math.log(len(self.tables.G))

    def least_evidence(self) -> float:
        """Evidence that a pattern must have: more where few patterns of the scan have a lattice,
        and where counts scatter beyond Poisson's law.
        """
        share = min(self.share, 0.5)
        least = MIN_EVIDENCE + math.log((1 - share) / share)
        if self.tables.dark.any():
            least += TOUCHING_EVIDENCE
        if not self.poisson:
            least += 2 * MIN_EVIDENCE + EVIDENCE_PER_RING * self.tables.ring.shape[1]
        return least

    def evidence_of(self, seen: Seen, lit: bool = True) -> Tensor:
        """Evidence (n,) of all patterns, or of those with electrons alone."""
        evidence = self.evidence(self.odds(seen.on, seen.sites))
        return evidence[seen.bright > 0] if lit else evidence

    def share_with_lattice(self, seen: Seen) -> float:
        """Share of the patterns with electrons whose evidence of a lattice suffices."""
        lattice = self.evidence_of(seen) > self.least_evidence()
        return float(lattice.float().mean()) if len(lattice) else 0.0

    def by_rounding(self, centre: Tensor, around: Tensor, likeliest: Tensor) -> Tensor:
        """What evidence (B,) comes of boxes on whole pixels, nearer to the beam or farther from it
        than their sites, where the counts round the rings (B, scales, R) fall off.
        """
        tables = self.tables
        G, scale = tables.G[likeliest], likeliest % tables.scales
        at = torch.einsum("bij,sj->bsi", G, tables.sites)
        length = torch.linalg.vector_norm(at, dim=-1)
        taken = (centre[:, None] + at).round() - centre[:, None]
        farther = (torch.linalg.vector_norm(taken, dim=-1) - length) @ tables.ring
        row = torch.arange(len(G), device=G.device)
        inner, outer = (scale + 1).clamp(max=tables.scales - 1), (scale - 1).clamp(min=0)
        ring_length = [
            torch.linalg.vector_norm(
                torch.einsum("bij,sj->bsi", tables.G[other], tables.sites), dim=-1
            )
            @ tables.ring
            / tables.ring.sum(0)
            for other in (inner, outer)
        ]
        slope = (around[row, inner] - around[row, outer]) / (ring_length[0] - ring_length[1])
        more = (slope * farther * self.on_gain[likeliest]).clamp_min(0).sum(-1)
        return more / self.scatter

    def enough_disks(
        self,
        beams: Beams,
        sums: Tensor,
        centre: Tensor,
        G: Tensor,
        on: Tensor,
        sites: Tensor,
        likeliest: Tensor,
    ) -> Tensor:
        """Whether (B,) the disks of each pattern, about its beam and at its lattice `G` (B, 2, 2),
        are more than two, and lie on more than one line through the beam. A systematic row
        determines F along one line only, and two bright pixels make no lattice.
        """
        tables = self.tables
        n, whole = at_sites(beams, sums, centre, G[:, None], tables.sites)
        n, whole = n[..., 0], whole[..., 0]
        if tables.dark.any():
            gaps = (tables.ring @ tables.dark.to(n.dtype)) * whole
            level = ((n * gaps).sum(-1) / gaps.sum(-1).clamp_min(1))[:, None]
        else:
            level = tables.between(on, sites, likeliest) @ tables.ring.T  # (B, S)
        node = tables.line.sum(1)
        expected = level * whole * node
        above, spread = (n * node - expected), (self.scatter * expected).clamp_min(0)
        on_line, spread_on_line = above @ tables.line, spread @ tables.line
        total, spread_of_all = above.sum(-1), spread.sum(-1)
        line = on_line.argmax(-1, keepdim=True)
        two = above.topk(min(2, above.shape[1]), dim=-1).indices
        enough = torch.ones_like(total, dtype=torch.bool)
        for part, of_part in (
            (on_line.gather(1, line), spread_on_line.gather(1, line)),
            (above.gather(1, two), spread.gather(1, two)),
        ):
            most, of_most = part.sum(-1), of_part.sum(-1)
            rest, of_rest = total - most, (spread_of_all - of_most).clamp_min(0)
            # One count more: what is expected in few counts is not known better.
            nothing = MIN_DEVIATIONS * (of_rest + 1).sqrt()
            alone = rest < torch.maximum(nothing, MIN_REST_SHARE * most)
            enough &= ~(alone & (most > 2 * MIN_DEVIATIONS * (of_most + 1).sqrt()))
        return enough


def scatter_in_gaps(
    tables: SiteTables,
    beams: Beams,
    sums: Tensor,
    centre: Tensor,
    G: Tensor,
    enough: float = MIN_GAPS,
) -> Tensor:
    """Variance over mean (B,) of the box sums in gaps at one distance from the beam: 1 where counts
    obey Poisson's law; NaN where nothing tells it.

    Fixed patterns, readout noise, gain and clusters of pixels all raise it. Where too few gaps lie
    at one distance, those within a disk's width do.
    """
    n, share = tables.in_gaps(beams, sums, centre, G)
    length = torch.linalg.vector_norm(tables.gaps @ tables.G[0].T, dim=-1)
    wide = torch.nn.functional.one_hot((length / (2 * tables.radius)).long()).to(n.dtype)
    scatter = torch.full_like(n[:, 0], torch.nan)
    for ring in (tables.gap_ring, wide):
        number = share @ ring
        mean = (n @ ring) / number.clamp_min(0.5)
        squares = ((n - share * (mean @ ring.T)) ** 2).sum(-1)
        free = (number - 1).clamp_min(0)
        ratio = squares / (mean * free).sum(-1)
        use = scatter.isnan() & (free.sum(-1) >= enough)
        scatter = torch.where(use, ratio, scatter)
    return scatter
