"""Where the disks of a pattern are, to a fraction of a disk radius: centre, in-plane orientation
and rough scale.

`SiteFinder.learn` takes a sample of the scan and fits a mixture to it by expectation maximisation.
A pattern either holds no lattice, or the nominal lattice turned by phi and scaled by s, on a grid
over one symmetry period and +-6 %. Counts in a box of a disk's area are Poisson with mean b + I on
a site and b beside it. A ring of m sites shares b and I, and covers the share c of its
circumference. The ring holds m a / c electrons in all, with a the mean box sum round it. Given that
number, the log odds of orientation k, with n_k counts on its sites, against no lattice are

    L_k = sum_rings n_k log(1 + I / b) - (m a / c) log(1 + c I / b).

They ask where the electrons lie, not how many there are, so neither vacuum nor a diffuse background
looks like a lattice.

A pattern that shows much less of a lattice than the others of its scan may hold one that is
strained by up to 12 %. It is sought beside the likeliest candidate (`strained`).

The weights of the mixture are the orientations that the scan does hold. They steady the patterns
that hold too few electrons to say by themselves.

What a detector makes without electrons obeys no such law. The boxes in the gaps between disks,
which hold no disk whatever the lattice, tell how counts scatter: their variance over mean divides
the log odds. A pattern must also show more than two disks, on more than one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.io.counts import Counts
from ccstae.io.stored import Patterns
from ccstae.machine.device import at_a_time
from ccstae.methods.shared import beams, lattice_sites, second_lattice, strained, windows
from ccstae.methods.shared.beams import Beams, Rows, box_sums

# Patterns that teach the mixture, evenly spread over the scan; fewer than twice as many.
SAMPLE = 512
ROUNDS = 8
ROUNDS_OF_SHARE = 50  # of the same for the share of patterns with a lattice alone
# Log of the odds, lattice against none, below which a pattern has no answer: 20 to 1, "strong"
# evidence (H. Jeffreys, Theory of Probability (1961)).
MIN_EVIDENCE = 3.0
# Rings' contrasts are learned from the patterns that they judge. Counts that obey Poisson's law pay
# for it by the mixture. A fixed pattern is the same in all, so that elsewhere every ring costs this
# much evidence, and all of it must be three times as strong.
EVIDENCE_PER_RING = 0.5
# Box sums that scatter less than this beyond Poisson's law obey it: few gaps a pattern and the rims
# of disks a little off their places make 1.5. Pixels tell more closely.
MIN_SCATTER = 2.0
PIXEL_SCATTER_TOLERANCE = 1.3
SCATTER_SAMPLE = 64
# Boxes farther than this from every node hold nothing of a disk: a box and a disk that touch are
# 2.25 radii apart at most.
BARE_RADII = 2.4
# Evidence that may come of boxes on whole pixels without being charged, in a fixed pattern.
MAX_BY_ROUNDING = 4.0
# Boxes between disks, less one for each mean, that tell of one pattern how box sums scatter.
MIN_GAPS = 3
MIN_OWN_GAPS = 12  # that tell it of one pattern alone
# Standard deviations of the background beyond which disks are seen on a line through the beam.
MIN_DEVIATIONS = 3.0
# Of what the strongest line holds, that the others hold where they have disks.
MIN_REST_SHARE = 0.01
# A pattern whose own box sums scatter more than the scan's by this counts less: four times is
# beyond what a few counts do by chance.
MIN_OWN_SCATTER = 4.0
# The direct beam holds at least the reciprocal of this of the brightest diffracted disk.
MAX_DIFFRACTED_OVER_DIRECT = 4.0
# Two lattices in fewer patterns than this are where grains meet.
MIN_SHARE_OF_TWO = 0.1
# A scan whose beams are taken elsewhere shows a lattice about nearly as many.
MIN_SHARE_OF_BEST = 0.9
# Where fewer patterns show a lattice about what is bright, the beam may lie behind a stop.
MIN_SHARE_BEHIND_NO_STOP = 0.1
MAX_COVER = 0.6
# Disks that cover more of the first ring nearly touch: the gaps between them, which small boxes
# fit, tell more of the lattice than they do.
TOUCHING_COVER = 0.8
GAP_BOXES = 3.0
# Evidence that gaps between touching disks must have beyond that of disks: no place is bare there
# to tell how a smooth fixed pattern scatters.
TOUCHING_EVIDENCE = 100.0
SOFT_PX = 1.0  # the soft edge of a disk, and what a box is off its place, which is a whole pixel
MAX_DARKNESS = 0.98  # share of what is round it that a gap lacks; the rest is for what was missed
# Memory, on a CPU, of what is worked out for all sites of all candidates of some patterns at a
# time. A scan whose disks are tiny against its detector learns from fewer patterns, and from the
# inner rings alone, so that one pattern takes at most `lattice_sites.MAX_PATTERN_BYTES`.
MAX_BYTES = 256 * 2**20
MAX_SAMPLE_BYTES = 2**30
BYTES_PER_RING = 20  # of a candidate: counts, sites, even spread and two temporaries, float32


@dataclass(frozen=True)
class Located:
    """Rough lattices of B patterns."""

    centre: Float[Tensor, "B 2"]  # direct beam, x and y in pixels, sub-pixel
    # columns g1 and g2 in pixels, to about a quarter of a disk radius at the outermost site
    G: Float[Tensor, "B 2 2"]
    has_lattice: Bool[Tensor, " B"]  # the evidence for a lattice exceeds 20 to 1


@dataclass(frozen=True)
class Seen:
    """What n patterns show about their beams."""

    pixel: Float[Tensor, "n 2"]  # the brightest box
    bright: Float[Tensor, " n"]  # its box sum
    centre: Float[Tensor, "n 2"]  # of the beam, x and y in pixels
    on: Float[Tensor, "n K R"]  # counts on the sites of each candidate, by ring
    sites: Float[Tensor, "n K R"]  # how many of them tell something


@dataclass(frozen=True)
class SiteFinder:
    """A learned mixture of orientations and scales."""

    radius: float  # of a disk, pixels
    G: Float[Tensor, "K 2 2"]  # candidate lattices in pixels
    box_radius: float  # of a disk of the area of the boxes on the sites
    hk: Int64[Tensor, "N 2"]  # the nodes that score
    sites: Float[Tensor, "S 2"]  # these, and gaps too where disks nearly touch, in units of g1, g2
    ring: Float[Tensor, "S R"]  # one-hot
    dark: Bool[Tensor, " R"]  # rings of gaps, which hold less than what is round them
    line: Float[Tensor, "S L"]  # one-hot: the line of nodes through the direct beam
    bare: Float[Tensor, "S T"]  # 1 where a site, turned so far, is clear of all disks
    peak: Float[Tensor, "T P"]  # share of disks in the boxes on a ring's sites, turned so far
    strange: Float[Tensor, "T P"]  # the same of disks of other rings alone
    gap_radius: float  # of a disk of the area of the boxes between disks
    gaps: Float[Tensor, "P 2"]  # places between disks, in units of g1 and g2
    gap_ring: Float[Tensor, "P Q"]  # one-hot: those at one distance from the beam
    scales: int  # candidates of one orientation lie together, in order of scale
    on_gain: Float[Tensor, "K R"]  # log(1 + I / b)
    ring_gain: Float[Tensor, "K R"]  # -log(1 + c I / b) / c
    log_prior: Float[Tensor, " K"]  # of the candidates, normalised
    beams: Beams  # of the scan
    share: float = 0.5  # of its patterns that hold a lattice
    branch: int | None = None  # turn of the lattice to follow, where patterns hold two
    scatter: float = 1.0  # variance over mean of its box sums
    poisson: bool = True  # whether its counts obey Poisson's law
    # median log odds of its lattices over the counts of their beams; 0 where none is known
    odds_per_count: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)  # what is said of the scan, as JSON has it

    @classmethod
    def blank(cls, calibration: Calibration, shape: tuple[int, ...], device: str) -> Self:
        """The candidates and sites of an instrument; nothing is learned yet.

        Args:
            calibration: of the instrument, with the nominal lattice.
            shape: of the detector, (Qy, Qx).
            device: "cpu" or "cuda".

        Raises:
            InputError: where no node can lie on the detector, or the disks are so small against it
                that their candidates would take more than `lattice_sites.MAX_PATTERN_BYTES` for a
                pattern.
        """
        radius = disk_radius_px(calibration)
        hk = lattice_sites.nodes(calibration, shape)
        if len(hk) == 0:
            raise InputError(
                f"the detector of {tuple(shape)} pixels shows no disk of the nominal lattice "
                f"beside the direct beam; expected the first ring on it: check the calibration"
            )
        nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A).float()
        length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
        # Rings that stay on the detector towards its farther borders, whichever way they turn;
        # `_at` leaves out the sites that are off the detector.
        _, farthest = lattice_sites.border_distances_px(calibration.centre_px, shape)
        whole = length + radius <= min(farthest)
        hk = hk[whole] if whole.any() else hk[length < length.min() * 1.01]
        hk = lattice_sites.within_memory(hk, nominal, calibration.rotational_symmetry, radius)
        reach = float(torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1).max())
        ring = torch.nn.functional.one_hot(lattice_sites.rings(calibration, hk)).float()
        covered = float(ring[:, 0].sum()) * radius / (math.pi * float(length.min()))
        touching = covered > TOUCHING_COVER
        box_radius, between, of_between = lattice_sites.gaps(nominal, radius, reach, 0.0)
        # A candidate must meet what tells of it: a disk, or a gap as wide as two boxes or so.
        G, scales = lattice_sites.candidates(
            nominal,
            calibration.rotational_symmetry,
            GAP_BOXES * box_radius if touching else radius,
            reach,
        )
        turns = len(G) // scales
        step = 2 * math.pi / calibration.rotational_symmetry / turns
        gap_radius, gaps, gap_ring = lattice_sites.gaps(nominal, radius, reach, SOFT_PX)
        sites, line = hk.float(), lattice_sites.one_hot_lines(hk)
        dark = torch.zeros(ring.shape[1], dtype=torch.bool)
        own, other = lattice_sites.nearest_nodes(nominal, hk, step, turns)
        peak, strange = (
            second_lattice.overlap(away, radius).T @ ring / ring.sum(0)
            for away in (torch.minimum(own, other), other)
        )
        if touching:
            sites = torch.cat([sites, between])
            line = torch.nn.functional.pad(line, (0, 0, 0, len(between)))
            ring = torch.block_diag(ring, of_between)
            dark = torch.arange(ring.shape[1]) >= len(dark)
        else:
            box_radius = radius
        gain = torch.zeros(len(G), ring.shape[1], device=device)
        good = torch.ones(shape, dtype=torch.bool, device=device)
        return cls(
            radius,
            G.to(device),
            box_radius,
            hk.to(device),
            sites.to(device),
            ring.to(device),
            dark.to(device),
            line.to(device),
            (torch.minimum(own, other) > BARE_RADII * radius).float().to(device),
            peak.to(device),
            strange.to(device),
            gap_radius,
            gaps.to(device),
            gap_ring.to(device),
            scales,
            gain,
            gain,
            torch.zeros(len(G), device=device),
            Beams.anywhere(calibration, good, 1),
        )

    @classmethod
    def learn(cls, counts: Counts, device: str) -> Self:
        """Fit the mixture to a sample of the scan, and find out where its beams are.

        Args:
            counts: patterns (Ry, Rx, Qy, Qx) and calibration.
            device: "cpu" or "cuda".

        Returns:
            A finder for the patterns of this scan; `at` makes one for another in the same
            instrument.
        """
        return cls.blank(counts.calibration, counts.detector, device)._settled(counts, teach=True)

    def at(self, counts: Counts) -> Self:
        """The finder for another scan of the same specimen in the same instrument: what was learned
        of its lattice stays, where its beams are and how its counts scatter is found anew.
        """
        return self._settled(counts, teach=False)

    def _settled(self, counts: Counts, teach: bool) -> Self:
        """The finder with the beams about which the patterns of a sample of the scan show a
        lattice, and with the mixture that they teach.
        """
        device = str(self.G.device)
        patterns = counts.patterns
        bytes_per_pattern = BYTES_PER_RING * self.on_gain.numel()
        sample = max(1, min(SAMPLE, MAX_SAMPLE_BYTES // (2 * bytes_per_pattern)))
        rows = np.arange(0, len(patterns), max(1, len(patterns) // sample))
        good = torch.from_numpy(counts.good).to(device)
        anywhere = Beams.anywhere(counts.calibration, good, len(patterns))
        free = replace(self, beams=anywhere)
        seen = free._seen(patterns, rows)
        nominal, reach = anywhere.expected[0], beams.reach_px(counts.calibration)
        lit = (seen.bright > 0).cpu().numpy()
        trials = []
        if lit.any():
            plane = beams.plane(counts, rows[lit], seen.pixel[lit])
            near = torch.linalg.vector_norm(seen.pixel - plane[rows], dim=-1)[lit] <= reach
            middle = plane.median(0).values
            if len(near) >= beams.MIN_PATTERNS and float(near.float().mean()) >= beams.MIN_AGREEING:
                trials.append(anywhere.near(plane, reach))
                plane = plane + (nominal - middle)
            else:
                plane = anywhere.expected
            few = len(near) < beams.MIN_PATTERNS
            if not few and (not trials or float((middle - nominal).norm()) > reach):
                trials += [anywhere.near(plane, reach), anywhere]

        def settle(where: Beams) -> tuple[Self, Seen, float]:
            finder = replace(self, beams=where)
            about = finder._again(seen, patterns, rows)
            if where.reach_px == 0:  # a hidden beam is dark; what shines beside it tells of light
                about = replace(about, bright=seen.bright)
            finder = finder._taught(about, patterns, rows, teach)
            return finder, about, finder._share_with_lattice(about)

        settled: list[tuple[Self, Seen, float]] = [settle(where) for where in trials or [anywhere]]
        best = _most_likely([about for _, about, _ in settled], [share for *_, share in settled])
        finder, about, share = settled[best]
        if share < MIN_SHARE_BEHIND_NO_STOP:
            # What is brightest may be the edge of a stop, and the beam behind it.
            behind: tuple[Self, Seen, float] = settle(anywhere.near(anywhere.expected, 0.0))
            if behind[2] > share:
                finder, about, _ = behind
        return finder._of_two(about)

    def locate(self, patterns: Tensor, rows: Rows = slice(None)) -> Located:
        """Direct beam and most probable lattice of each pattern.

        Args:
            patterns: counts (B, Qy, Qx), float32.
            rows: their places in the scan, in scan order.

        Returns:
            Rough lattices, and whether there is one: the evidence exceeds `MIN_EVIDENCE`, and shows
            disks in two directions.
        """
        size = self._patterns_at_a_time()
        if len(patterns) > size:
            places = np.arange(len(self.beams.expected))[rows]
            parts = [
                self.locate(part, places[i * size : (i + 1) * size])
                for i, part in enumerate(patterns.split(size))
            ]
            return Located(
                torch.cat([part.centre for part in parts]),
                torch.cat([part.G for part in parts]),
                torch.cat([part.has_lattice for part in parts]),
            )
        sums = self._boxes(patterns, self.radius)
        pixel, _ = self.beams.brightest(sums, rows)
        expected = self.beams.expected[rows]
        found, evidence = self._about(patterns, sums, pixel, expected)
        anywhere, _ = self.beams.brightest(sums, rows, free=True)
        # A pattern whose brightest disk is not where its beam is expected, and that shows no
        # lattice there, may have its beam elsewhere all the same.
        doubtful = ((anywhere != pixel).any(-1) & ~found.has_lattice).nonzero()[:, 0]
        if len(doubtful):
            other, better = self._about(
                patterns[doubtful], sums[doubtful], anywhere[doubtful], expected[doubtful]
            )
            use = other.has_lattice & (better > evidence[doubtful])
            took = doubtful[use]
            found.centre[took], found.G[took] = other.centre[use], other.G[use]
            found.has_lattice[took] = True
        return found

    def _about(
        self, patterns: Tensor, sums: Tensor, pixel: Tensor, expected: Tensor
    ) -> tuple[Located, Tensor]:
        """Lattices of patterns (B, Qy, Qx) about beams near `pixel` (B, 2), and the evidence (B,)
        for them.
        """
        centre = self.beams.centres(patterns, pixel)
        bright = sums
        sums = self._other_boxes(patterns, bright, self.box_radius)
        on, sites = self._count(sums, centre)
        odds = self._log_odds(on, self._even(sites, self._around(on, sites)))
        likeliest = (odds / self.scatter + self.log_prior).argmax(-1)
        in_gaps = self._other_boxes(patterns, bright, self.gap_radius)
        own = self._over_mean(in_gaps, centre, self.G[likeliest], MIN_OWN_GAPS) / self.scatter
        own = torch.where(own > MIN_OWN_SCATTER, own, 1)
        rounding = self._by_rounding(centre, self._around(on, sites), likeliest) / own
        # Gaps between touching disks hold their rims, and no ring is smooth; where counts obey
        # Poisson's law, the mixture has paid for it.
        if self.dark.any():
            own = torch.ones_like(own)
        if self.dark.any() or (self.poisson and self.scatter == 1):
            rounding = torch.zeros_like(rounding)
        evidence = self._evidence(odds / own[:, None])
        evidence = evidence - (rounding - MAX_BY_ROUNDING).clamp_min(0)
        mixed = torch.zeros_like(evidence, dtype=torch.bool)
        if self.branch is not None:
            likeliest, mixed = self._follow(on, sites, likeliest)
        G = self.G[likeliest]
        least = strained.MIN_SHARE_OF_ODDS * self.odds_per_count * self._box_at(bright, pixel)
        few = odds.gather(1, likeliest[:, None])[:, 0] / self.scatter < least
        row = few.nonzero()[:, 0]
        if len(row) and self.odds_per_count and not self.dark.any() and self.branch is None:
            G[row], evidence[row] = self._strained(
                sums[row], centre[row], likeliest[row], evidence[row], own[row], least[row]
            )
        determined = self._enough_disks(sums, centre, G, on, sites, likeliest)
        has_lattice = (evidence > self._least_evidence()) & determined & ~mixed
        if math.isinf(self.beams.reach_px):
            centre = self._node_nearest(bright, centre, G, expected, self._around(on, sites))
        return Located(centre, G, has_lattice), evidence

    def _strained(
        self,
        sums: Tensor,
        centre: Tensor,
        likeliest: Tensor,
        evidence: Tensor,
        own: Tensor,
        least: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lattices (B, 2, 2) of patterns and the evidence (B,) for them, where a strained one gains
        more than `least` (B,) in log odds; the candidate `likeliest` (B,) and its `evidence` (B,)
        elsewhere. How box sums of a pattern scatter beyond those of the scan is `own` (B,).
        """
        nominal = self.G[self.scales // 2]
        lengths = torch.linalg.vector_norm(self.sites @ nominal.T, dim=-1)
        n, whole = self._at(
            sums, centre, *strained.circles(float(lengths.max()), str(self.G.device))
        )
        profile = n.sum(1) / whole.sum(1).clamp_min(1)
        on_gain, ring_gain = self.on_gain[likeliest, None], self.ring_gain[likeliest, None]

        def score(G: Tensor, nodes: Tensor) -> Tensor:
            hk, ring = self.sites[nodes], self.ring[nodes]
            n, whole = self._at(sums, centre, G, hk)
            even = whole * strained.at_distance(profile, G, hk)
            on, even = (ring.T @ n).mT, (ring.T @ even).mT
            return (on * on_gain + even * ring_gain).sum(-1) / self.scatter

        G = self.G[likeliest]
        before = score(G[:, None], torch.ones_like(lengths, dtype=torch.bool))[:, 0]
        found, odds, tried = strained.search(score, G, lengths, self.radius)
        gain = odds - before - math.log(tried) - MIN_EVIDENCE
        use = (gain > least) & strained.within_reach(found, nominal)
        of_found = odds / own - math.log(tried * len(self.G))
        return torch.where(use[:, None, None], found, G), torch.where(use, of_found, evidence)

    def _node_nearest(
        self, sums: Tensor, centre: Tensor, G: Tensor, expected: Tensor, around: Tensor
    ) -> Tensor:
        """The node (B, 2) of each lattice that is nearest to the expected beam, where it may be the
        beam: nearly as bright as the brightest disk at `centre`, or behind a stop.
        """
        index = torch.arange(-6, 7, device=G.device, dtype=G.dtype)
        hk = torch.cartesian_prod(index, index)
        nodes = centre[:, None] + torch.einsum("bij,sj->bsi", G, hk)
        away = torch.linalg.vector_norm(nodes - expected[:, None], dim=-1)
        node = nodes[torch.arange(len(nodes), device=G.device), away.argmin(1)]
        here, there = self._box_at(sums, centre), self._box_at(sums, node)
        bright = there * MAX_DIFFRACTED_OVER_DIRECT >= here
        hidden = there * MAX_DIFFRACTED_OVER_DIRECT < around.amin((1, 2))
        return torch.where((bright | hidden)[:, None], node, centre)

    @staticmethod
    def _box_at(sums: Tensor, at: Tensor) -> Tensor:
        """Box sums (B,) of `sums` (B, Qy, Qx) at places (B, 2)."""
        B, height, width = sums.shape
        x, y = at.round().long().unbind(-1)
        return sums[
            torch.arange(B, device=sums.device), y.clamp(0, height - 1), x.clamp(0, width - 1)
        ]

    def _evidence(self, odds: Tensor) -> Tensor:
        """Log odds (B,) of any lattice against none.

        They take all orientations for equally likely, since a mixture learned from a scan of vacuum
        has learned its noise.
        """
        return (odds / self.scatter).logsumexp(-1) - math.log(len(self.G))

    def _least_evidence(self) -> float:
        """Evidence that a pattern must have: more where few patterns of the scan have a lattice,
        and where counts scatter beyond Poisson's law.
        """
        share = min(self.share, 0.5)
        least = MIN_EVIDENCE + math.log((1 - share) / share)
        if self.dark.any():
            least += TOUCHING_EVIDENCE
        if not self.poisson:
            least += 2 * MIN_EVIDENCE + EVIDENCE_PER_RING * self.ring.shape[1]
        return least

    def _evidence_of(self, seen: Seen, lit: bool = True) -> Tensor:
        """Evidence (n,) of all patterns, or of those with electrons alone."""
        odds = self._log_odds(seen.on, self._even(seen.sites, self._around(seen.on, seen.sites)))
        evidence = self._evidence(odds)
        return evidence[seen.bright > 0] if lit else evidence

    def _share_with_lattice(self, seen: Seen) -> float:
        """Share of the patterns with electrons whose evidence of a lattice suffices."""
        lattice = self._evidence_of(seen) > self._least_evidence()
        return float(lattice.float().mean()) if len(lattice) else 0.0

    def _by_rounding(self, centre: Tensor, around: Tensor, likeliest: Tensor) -> Tensor:
        """What evidence (B,) comes of boxes on whole pixels, nearer to the beam or farther from it
        than their sites, where the counts round the rings (B, scales, R) fall off.
        """
        G, scale = self.G[likeliest], likeliest % self.scales
        at = torch.einsum("bij,sj->bsi", G, self.sites)
        length = torch.linalg.vector_norm(at, dim=-1)
        taken = (centre[:, None] + at).round() - centre[:, None]
        farther = (torch.linalg.vector_norm(taken, dim=-1) - length) @ self.ring
        row = torch.arange(len(G), device=G.device)
        inner, outer = (scale + 1).clamp(max=self.scales - 1), (scale - 1).clamp(min=0)
        ring_length = [
            torch.linalg.vector_norm(torch.einsum("bij,sj->bsi", self.G[other], self.sites), dim=-1)
            @ self.ring
            / self.ring.sum(0)
            for other in (inner, outer)
        ]
        slope = (around[row, inner] - around[row, outer]) / (ring_length[0] - ring_length[1])
        more = (slope * farther * self.on_gain[likeliest]).clamp_min(0).sum(-1)
        return more / self.scatter

    def _enough_disks(
        self,
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
        n, whole = self._at(sums, centre, G[:, None], self.sites)
        n, whole = n[..., 0], whole[..., 0]
        if self.dark.any():
            gaps = (self.ring @ self.dark.to(n.dtype)) * whole
            level = ((n * gaps).sum(-1) / gaps.sum(-1).clamp_min(1))[:, None]
        else:
            level = self._between(on, sites, likeliest) @ self.ring.T  # (B, S)
        node = self.line.sum(1)
        expected = level * whole * node
        above, spread = (n * node - expected), (self.scatter * expected).clamp_min(0)
        on_line, spread_on_line = above @ self.line, spread @ self.line
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

    def _at_every_turn(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
        """Of `on` and `sites` (B, K, R), those (B, T, R) at the scale of a candidate (B,)."""
        by_turn = (len(on), -1, self.scales, on.shape[-1])
        row, scale = torch.arange(len(on), device=on.device), likeliest % self.scales
        return on.reshape(by_turn)[row, :, scale], sites.reshape(by_turn)[row, :, scale]

    def _pairs(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> second_lattice.Pair:
        """Whether patterns with a lattice hold a second one, and the turns of both."""
        on, sites = self._at_every_turn(on, sites, likeliest)
        profile = on / sites.clamp_min(0.5)
        precision = sites.mean(1) / profile.mean(1).clamp_min(1e-3) / self.scatter
        precision = torch.where((sites > 0.5).all(1), precision, 0)
        # The outermost sites move by a quarter of a radius from one turn to the next.
        return second_lattice.pairs(profile, precision, self.peak, self.strange, least=4)

    def _between(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> Tensor:
        """Mean box sum (B, R) of each ring between the disks of the candidate `likeliest` (B,); the
        least mean over its orientations where disks leave no room.
        """
        R = on.shape[-1]
        on, sites = self._at_every_turn(on, sites, likeliest)
        turn = (likeliest // self.scales)[:, None] + torch.arange(on.shape[1], device=on.device)
        turn = (turn % on.shape[1])[..., None].expand(-1, -1, R)
        on, sites = on.gather(1, turn), sites.gather(1, turn)
        bare = torch.stack([self.bare[self.ring[:, r] > 0].amin(0) for r in range(R)], 1)
        free = (on * bare).sum(1) / (sites * bare).sum(1).clamp_min(1)
        least = torch.where(sites > 0, on / sites.clamp_min(0.5), torch.inf).amin(1)
        least = torch.where(least.isfinite(), least, 0)
        return torch.where((sites * bare).sum(1) > 0, free, least)

    def _seen(self, patterns: Patterns, rows: NDArray[np.int64]) -> Seen:
        """What patterns of a scan show about their beams."""

        def about_beams(chunk: Tensor, part: slice) -> tuple[Tensor, ...]:
            sums = self._boxes(chunk, self.radius)
            pixel, bright = self.beams.brightest(sums, rows[part])
            centre = self.beams.centres(chunk, pixel)
            return (
                pixel,
                bright,
                centre,
                *self._count(self._other_boxes(chunk, sums, self.box_radius), centre),
            )

        return Seen(*windows.over_scan(about_beams, patterns, str(self.G.device), rows))

    def _again(self, seen: Seen, patterns: Patterns, rows: NDArray[np.int64]) -> Seen:
        """The same about other beams; only what changes is worked out again."""
        away = torch.linalg.vector_norm(seen.pixel - self.beams.expected[rows], dim=-1)
        change = (away > self.beams.reach_px).nonzero()[:, 0]
        if not len(change):
            return seen
        anew = self._seen(patterns, rows[change.cpu().numpy()])
        return Seen(
            *(
                old.index_copy(0, change, new)
                for old, new in zip(vars(seen).values(), vars(anew).values(), strict=True)
            )
        )

    def _of_two(self, seen: Seen) -> Self:
        """The finder with the branch to follow, where many patterns of a sample hold two."""
        lattice = (self._evidence_of(seen, lit=False) > self._least_evidence()).nonzero()[:, 0]
        if self.dark.any() or not len(lattice):
            return self
        lattice = lattice[:: max(1, len(lattice) // SCATTER_SAMPLE)]
        on, sites = seen.on[lattice], seen.sites[lattice]
        pair = self._pairs(on, sites, self._likeliest(on, sites))
        share = float(pair.seen.float().mean())
        if share < MIN_SHARE_OF_TWO:
            return self
        turns = len(self.G) // self.scales
        turn = pair.turn[pair.seen]
        held = torch.bincount(turn.flatten(), minlength=turns)
        held = held + held.roll(1) + held.roll(-1)
        apart = float(_turns_apart(turn[:, 0], turn[:, 1], turns).float().median())
        degrees = math.degrees(apart * self._step())
        found = {
            "second_lattice": f"a second lattice, {degrees:.0f} degrees from the first, in "
            f"{share:.0%} of the patterns"
        }
        return replace(self, branch=int(held.argmax()), found={**self.found, **found})

    def _follow(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
        """Of patterns that hold two lattices, the candidate (B,) of the branch of the scan, and
        which (B,) have disks of both in one place.
        """
        turns = len(self.G) // self.scales
        pair = self._pairs(on, sites, likeliest)
        nearest = _turns_apart(pair.turn, torch.tensor(self.branch), turns).argmin(1)
        turn = pair.turn.gather(1, nearest[:, None])[:, 0]
        candidate = turn * self.scales + likeliest % self.scales
        apart = _turns_apart(pair.turn[:, 0], pair.turn[:, 1], turns)
        first_ring = torch.linalg.vector_norm(self.hk.float() @ self.G[0].T, dim=-1).min()
        apart_px = apart * self._step() * first_ring
        mixed = pair.seen & (apart_px < second_lattice.APART_RADII * self.radius)
        return torch.where(pair.seen, candidate, likeliest), mixed

    def _step(self) -> float:
        """Angle in radians from one turn to the next."""
        turned = self.G[self.scales] @ torch.linalg.inv(self.G[0])
        return math.atan2(float(turned[1, 0]), float(turned[0, 0]))

    def _likeliest(self, on: Tensor, sites: Tensor) -> Tensor:
        """The likeliest candidate (B,) of patterns."""
        odds = self._log_odds(on, self._even(sites, self._around(on, sites)))
        return (odds / self.scatter + self.log_prior).argmax(-1)

    def _taught(self, seen: Seen, patterns: Patterns, rows: NDArray[np.int64], teach: bool) -> Self:
        """The finder with the mixture of a sample, where it is to be taught, and the scatter of its
        box sums.
        """
        finder = self._maximise(seen.on, seen.sites) if teach else self
        finder = finder._measured(seen, patterns, rows)
        if finder.scatter > 1 and teach:
            finder = finder._maximise(seen.on, seen.sites)
        evidence = finder._evidence_of(seen)
        share, least = 0.5, 0.5 / (1 + len(evidence))
        for _ in range(ROUNDS_OF_SHARE if len(evidence) else 0):
            share = float((evidence + math.log(share / (1 - share))).sigmoid().mean())
            share = min(max(share, least), 1 - least)
        return replace(finder, share=share, odds_per_count=finder._odds_per_count(seen))

    def _odds_per_count(self, seen: Seen) -> float:
        """Median over patterns with a lattice of the log odds of the likeliest candidate, over the
        counts of the direct beam; 0 where no pattern has one.
        """
        odds = self._log_odds(seen.on, self._even(seen.sites, self._around(seen.on, seen.sites)))
        lattice = (self._evidence(odds) > self._least_evidence()) & (seen.bright > 0)
        ratio = odds.amax(1)[lattice] / self.scatter / seen.bright[lattice]
        return float(ratio.median()) if len(ratio) else 0.0

    def _measured(self, seen: Seen, patterns: Patterns, rows: NDArray[np.int64]) -> Self:
        """The finder with the scatter of the counts between the disks of some patterns, at their
        likeliest lattices: that of box sums, and that of pixels against their neighbours. Both are
        medians over the patterns.
        """
        step = max(1, len(rows) // SCATTER_SAMPLE)
        on, sites, centre = seen.on[::step], seen.sites[::step], seen.centre[::step]
        G = self.G[self._likeliest(on, sites)]
        rows = rows[::step]

        def of_chunk(chunk: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            left, right = chunk[..., :-1], chunk[..., 1:]
            squares, both = (
                self._in_gaps(
                    self._boxes(torch.nn.functional.pad(image, (0, 1)), self.gap_radius),
                    centre[part],
                    G[part],
                )[0]
                for image in ((right - left) ** 2, right + left)
            )
            boxes = self._boxes(chunk, self.gap_radius)
            return self._over_mean(boxes, centre[part], G[part]), squares.sum(1) / both.sum(1)

        of_boxes, of_pixels = (
            values[values.isfinite()]
            for values in windows.over_scan(of_chunk, patterns, str(self.G.device), rows)
        )
        scatter = float(of_boxes.median()) if len(of_boxes) else 1.0
        pixels = float(of_pixels.median()) if len(of_pixels) else 1.0
        # Tails of disks and other smooth structure, which many counts show, scatter the boxes
        # alone.
        poisson = 1 / PIXEL_SCATTER_TOLERANCE < pixels < PIXEL_SCATTER_TOLERANCE
        return replace(self, scatter=scatter if scatter >= MIN_SCATTER else 1.0, poisson=poisson)

    def _in_gaps(self, sums: Tensor, centre: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        """Box sums (B, P) in the gaps of lattices G (B, 2, 2) about `centre` (B, 2), and the share
        of each that tells something.
        """
        n, share = self._at(sums, centre, G[:, None], self.gaps)
        return n[..., 0], share[..., 0]

    def _over_mean(
        self, sums: Tensor, centre: Tensor, G: Tensor, enough: float = MIN_GAPS
    ) -> Tensor:
        """Variance over mean (B,) of the box sums in gaps at one distance from the beam: 1 where
        counts obey Poisson's law; NaN where nothing tells it.

        Fixed patterns, readout noise, gain and clusters of pixels all raise it. Where too few gaps
        lie at one distance, those within a disk's width do.
        """
        n, share = self._in_gaps(sums, centre, G)
        length = torch.linalg.vector_norm(self.gaps @ self.G[0].T, dim=-1)
        wide = torch.nn.functional.one_hot((length / (2 * self.radius)).long()).to(n.dtype)
        scatter = torch.full_like(n[:, 0], torch.nan)
        for ring in (self.gap_ring, wide):
            number = share @ ring
            mean = (n @ ring) / number.clamp_min(0.5)
            squares = ((n - share * (mean @ ring.T)) ** 2).sum(-1)
            free = (number - 1).clamp_min(0)
            ratio = squares / (mean * free).sum(-1)
            use = scatter.isnan() & (free.sum(-1) >= enough)
            scatter = torch.where(use, ratio, scatter)
        return scatter

    @staticmethod
    def _boxes(patterns: Tensor, radius: float) -> Tensor:
        """Sums (B, Qy, Qx) over boxes of the area of a disk of `radius`."""
        return windows.piecewise(lambda piece: box_sums(piece, radius), patterns)

    def _other_boxes(self, patterns: Tensor, sums: Tensor, radius: float) -> Tensor:
        """The same, which is `sums` where they are over the boxes of a disk."""
        return sums if radius == self.radius else self._boxes(patterns, radius)

    def _count(self, sums: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Counts on the sites of each candidate about `centre` (B, 2) by ring (B, K, R), and how
        many of those sites tell something (B, K, R).
        """
        n, whole = self._at(sums, centre, self.G[None], self.sites)
        return (self.ring.T @ n).mT, (self.ring.T @ whole).mT

    def _at(self, sums: Tensor, centre: Tensor, G: Tensor, hk: Tensor) -> tuple[Tensor, Tensor]:
        """Box sums (B, S, K) at sites `hk` (S, 2) of lattices G (B or 1, K, 2, 2) about `centre`
        (B, 2), and the share of each that tells something.

        A site whose disk leaves the detector, or that is mostly bad, counts neither electrons nor
        as a site; one that is bad in part counts for the rest.
        """
        B, height, width = sums.shape
        offset = torch.einsum("bkij,sj->bisk", G, hk.to(G.dtype)).flatten(2)  # (B, 2, S K)
        x = (centre[:, 0, None] + offset[:, 0]).round_().clamp_(0, width - 1)
        y = (centre[:, 1, None] + offset[:, 1]).round_().clamp_(0, height - 1)
        flat = y.mul_(width).add_(x).long()
        n = sums.reshape(B, -1).gather(1, flat)
        whole = self.beams.share.flatten().expand(B, -1).gather(1, flat)
        by_site = (B, len(hk), -1)
        return (n * (whole > 0)).reshape(by_site), whole.reshape(by_site)

    def _patterns_at_a_time(self) -> int:
        """How many patterns `MAX_BYTES`, or a share of a GPU's memory, have room for."""
        sites = len(self.G) * len(self.sites)
        each = lattice_sites.BYTES_PER_SITE * sites + BYTES_PER_RING * self.on_gain.numel()
        return at_a_time(MAX_BYTES // each, each, self.G.device.type)

    def _around(self, on: Tensor, sites: Tensor) -> Tensor:
        """Mean box sum (B, scales, R) over all orientations at each scale: what lies at that
        distance from the beam.
        """
        by_scale = (len(on), -1, self.scales, on.shape[-1])
        return on.reshape(by_scale).sum(1) / sites.reshape(by_scale).sum(1).clamp_min(1)

    def _even(self, sites: Tensor, around: Tensor) -> Tensor:
        """Counts m a, (B, K, R), that the sites would hold if the electrons were spread evenly
        round each ring.
        """
        return sites * around.repeat(1, len(self.G) // self.scales, 1)

    def _log_odds(self, on: Tensor, even: Tensor) -> Tensor:
        """L_k, (B, K)."""
        return (on * self.on_gain + even * self.ring_gain).sum(-1)

    def _maximise(self, on: Tensor, sites: Tensor) -> Self:
        """Expectation maximisation over the sample (N patterns, from `_sums`): orientations held,
        share without lattice, I and b of each ring.
        """
        N, K, _ = on.shape
        turns = K // self.scales
        around = self._around(on, sites)
        even = self._even(sites, around)
        # The share c of a ring's circumference that its disks cover, and so of I that `around`
        # holds. Boxes between disks that nearly touch hold parts of both, which count as b.
        length = torch.linalg.vector_norm(self.sites @ self.G[0].T, dim=-1)
        of_site = 2 * self.radius / (2 * math.pi * length)
        cover = (of_site[:, None] * self.ring).sum(0).clamp(max=MAX_COVER)
        log_prior = torch.full((K,), -math.log(K), device=on.device)
        no_lattice = 0.0  # share of such patterns; let in once I and b are roughly known
        background = around.mean(0)  # b, (scales, R)
        intensity = background[self.scales // 2]  # I, (R,)
        intensity = torch.where(self.dark, -intensity / 2, intensity)
        finder = self
        for turn in range(ROUNDS):
            floor = 1e-3 * intensity.abs() + torch.finfo(on.dtype).tiny
            contrast = intensity / torch.maximum(background, floor)  # (scales, R)
            contrast = contrast.clamp_min(-MAX_DARKNESS)
            on_gain, ring_gain = torch.log1p(contrast), -torch.log1p(cover * contrast) / cover
            finder = replace(
                self,
                on_gain=on_gain.repeat(turns, 1),
                ring_gain=ring_gain.repeat(turns, 1),
                log_prior=log_prior,
            )
            odds = finder._log_odds(on, even) / self.scatter + log_prior
            if turn >= ROUNDS // 2:
                without = odds.new_full((N, 1), math.log(no_lattice))
                odds = torch.cat([odds + math.log1p(-no_lattice), without], 1)
            share = odds.softmax(1)[:, :K]
            lattice = share.sum(1)
            mean = torch.einsum("n,nsr->sr", lattice, around) / lattice.sum().clamp_min(1e-6)
            above = on - sites * mean.repeat(turns, 1)
            number = torch.einsum("nk,nkr->r", share, sites).clamp_min(1e-6)
            intensity = torch.einsum("nk,nkr->r", share, above) / number
            intensity = intensity / (1 - cover)
            intensity = torch.where(self.dark, intensity.clamp_max(0), intensity.clamp_min(0))
            background = (mean - cover * intensity).clamp_min(0)
            # One pattern's worth of weight is spread evenly, so that an orientation that the sample
            # lacks stays possible.
            prior = share.sum(0) + 1 / K
            log_prior = (prior / prior.sum()).log()
            no_lattice = min(max(1 - float(lattice.mean()), 0.01), 0.99)
        return finder


def _turns_apart(one: Tensor, other: Tensor, turns: int) -> Tensor:
    """How many turns apart, the shorter way round."""
    apart = (one - other).abs()
    return torch.minimum(apart, turns - apart)


def _most_likely(seen: list[Seen], share: list[float]) -> int:
    """The beams about which most patterns of a sample show a lattice, of those that were tried.

    Of those that do about equally well, beams near the calibration's centre come first where they
    are nearly as bright as the brightest boxes, then the plane of the brightest boxes, then any
    box: about any disk of a lattice the same lattice is seen.

    Args:
        seen: what the patterns show about each: a plane if there is one, near the centre, anywhere.
        share: how many show a lattice.
    """
    if len(seen) == 1:
        return 0
    able = [one >= MIN_SHARE_OF_BEST * max(share) for one in share]
    plane, nominal, anywhere = 0, len(seen) - 2, len(seen) - 1
    lit = seen[anywhere].bright > 0
    ratio = seen[nominal].bright[lit] / seen[anywhere].bright[lit]
    if able[nominal] and len(ratio) and float(ratio.median()) * MAX_DIFFRACTED_OVER_DIRECT >= 1:
        return nominal
    order = [plane, anywhere, nominal] if nominal else [anywhere, nominal]
    return next(trial for trial in order if able[trial])
