"""Where the disks of a pattern are, to a fraction of a disk radius: centre, in-plane orientation
and rough scale.

`SiteFinder.learn` takes a sample of the scan and fits a mixture to it by expectation maximisation
(`site_learning`). A pattern either holds no lattice, or one of the candidates of the instrument
(`site_tables`), by the odds of the mixture (`site_evidence`), or one strained by more than any of
these (`strained`). A pattern may also hold two lattices (`second_lattice`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.calibration import Calibration
from ccstae.io.counts import Counts
from ccstae.io.stored import Patterns
from ccstae.machine.device import at_a_time, spread_over
from ccstae.methods.shared import beams, lattice_sites, second_lattice, strained, windows
from ccstae.methods.shared.beams import Beams, Rows
from ccstae.methods.shared.site_evidence import Mixture, Seen, scatter_in_gaps
from ccstae.methods.shared.site_learning import SCATTER_SAMPLE, taught
from ccstae.methods.shared.site_tables import SiteTables, box_at, boxes

# Patterns that teach the mixture, evenly spread over the scan; fewer than twice as many.
SAMPLE = 512
# Evidence that may come of boxes on whole pixels without being charged, in a fixed pattern.
MAX_BY_ROUNDING = 4.0
MIN_OWN_GAPS = 12  # boxes between disks that tell of one pattern alone how box sums scatter
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
class SiteFinder:
    """A learned mixture of orientations and scales, and the beams of a scan."""

    mixture: Mixture
    beams: Beams  # of the scan
    branch: int | None = None  # turn of the lattice to follow, where patterns hold two
    found: dict[str, Any] = field(default_factory=dict)  # what is said of the scan, as JSON has it

    @classmethod
    def blank(cls, calibration: Calibration, shape: tuple[int, ...], device: str) -> Self:
        """The finder of an instrument; nothing is learned yet.

        Args, errors: as those of `SiteTables.of`.
        """
        tables = SiteTables.of(calibration, shape, device)
        good = torch.ones(shape, dtype=torch.bool, device=device)
        return cls(Mixture.blank(tables), Beams.anywhere(calibration, good, 1))

    @property
    def tables(self) -> SiteTables:
        """Candidates and sites of the instrument."""
        return self.mixture.tables

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
        device = str(self.tables.G.device)
        patterns = counts.patterns
        bytes_per_pattern = BYTES_PER_RING * self.mixture.on_gain.numel()
        sample = max(1, min(SAMPLE, MAX_SAMPLE_BYTES // (2 * bytes_per_pattern)))
        rows = spread_over(len(patterns), sample)
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
            mixture = taught(self.mixture, where, about, patterns, rows, teach)
            return replace(finder, mixture=mixture), about, mixture.share_with_lattice(about)

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
        sums = boxes(patterns, self.tables.radius)
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
        tables, mixture = self.tables, self.mixture
        centre = self.beams.centres(patterns, pixel)
        bright = sums
        sums = tables.other_boxes(patterns, bright, tables.box_radius)
        on, sites = tables.count(self.beams, sums, centre)
        around = tables.around(on, sites)
        odds = mixture.log_odds(on, tables.even(sites, around))
        likeliest = (odds / mixture.scatter + mixture.log_prior).argmax(-1)
        in_gaps = tables.other_boxes(patterns, bright, tables.gap_radius)
        G = tables.G[likeliest]
        own = scatter_in_gaps(tables, self.beams, in_gaps, centre, G, MIN_OWN_GAPS)
        own = own / mixture.scatter
        own = torch.where(own > MIN_OWN_SCATTER, own, 1)
        rounding = mixture.by_rounding(centre, around, likeliest) / own
        # Gaps between touching disks hold their rims, and no ring is smooth; where counts obey
        # Poisson's law, the mixture has paid for it.
        if tables.dark.any():
            own = torch.ones_like(own)
        if tables.dark.any() or (mixture.poisson and mixture.scatter == 1):
            rounding = torch.zeros_like(rounding)
        evidence = mixture.evidence(odds / own[:, None])
        evidence = evidence - (rounding - MAX_BY_ROUNDING).clamp_min(0)
        mixed = torch.zeros_like(evidence, dtype=torch.bool)
        if self.branch is not None:
            likeliest, mixed = self._follow(on, sites, likeliest)
            G = tables.G[likeliest]
        else:
            G, evidence = strained.sought(
                mixture,
                self.beams,
                sums,
                centre,
                likeliest,
                odds.gather(1, likeliest[:, None])[:, 0] / mixture.scatter,
                evidence,
                own,
                box_at(bright, pixel),
            )
        determined = mixture.enough_disks(self.beams, sums, centre, G, on, sites, likeliest)
        has_lattice = (evidence > mixture.least_evidence()) & determined & ~mixed
        if math.isinf(self.beams.reach_px):
            centre = self._node_nearest(bright, centre, G, expected, around)
        return Located(centre, G, has_lattice), evidence

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
        here, there = box_at(sums, centre), box_at(sums, node)
        bright = there * MAX_DIFFRACTED_OVER_DIRECT >= here
        hidden = there * MAX_DIFFRACTED_OVER_DIRECT < around.amin((1, 2))
        return torch.where((bright | hidden)[:, None], node, centre)

    def _seen(self, patterns: Patterns, rows: NDArray[np.int64]) -> Seen:
        """What patterns of a scan show about their beams."""

        def about_beams(chunk: Tensor, part: slice) -> tuple[Tensor, ...]:
            sums = boxes(chunk, self.tables.radius)
            pixel, bright = self.beams.brightest(sums, rows[part])
            centre = self.beams.centres(chunk, pixel)
            sums = self.tables.other_boxes(chunk, sums, self.tables.box_radius)
            return pixel, bright, centre, *self.tables.count(self.beams, sums, centre)

        return Seen(*windows.over_scan(about_beams, patterns, str(self.tables.G.device), rows))

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

    def _pairs(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> second_lattice.Pair:
        """Whether patterns with a lattice hold a second one, and the turns of both."""
        on, sites = self.tables.at_every_turn(on, sites, likeliest)
        profile = on / sites.clamp_min(0.5)
        precision = sites.mean(1) / profile.mean(1).clamp_min(1e-3) / self.mixture.scatter
        precision = torch.where((sites > 0.5).all(1), precision, 0)
        # The outermost sites move by a quarter of a radius from one turn to the next.
        return second_lattice.pairs(
            profile, precision, self.tables.peak, self.tables.strange, least=4
        )

    def _of_two(self, seen: Seen) -> Self:
        """The finder with the branch to follow, where many patterns of a sample hold two."""
        evidence = self.mixture.evidence_of(seen, lit=False)
        lattice = (evidence > self.mixture.least_evidence()).nonzero()[:, 0]
        if self.tables.dark.any() or not len(lattice):
            return self
        lattice = lattice[spread_over(len(lattice), SCATTER_SAMPLE)]
        on, sites = seen.on[lattice], seen.sites[lattice]
        pair = self._pairs(on, sites, self.mixture.likeliest(on, sites))
        share = float(pair.seen.float().mean())
        if share < MIN_SHARE_OF_TWO:
            return self
        turns = self.tables.turns
        turn = pair.turn[pair.seen]
        held = torch.bincount(turn.flatten(), minlength=turns)
        held = held + held.roll(1) + held.roll(-1)
        apart = float(_turns_apart(turn[:, 0], turn[:, 1], turns).float().median())
        degrees = math.degrees(apart * self.tables.step)
        found = {
            "second_lattice": f"a second lattice, {degrees:.0f} degrees from the first, in "
            f"{share:.0%} of the patterns"
        }
        return replace(self, branch=int(held.argmax()), found={**self.found, **found})

    def _follow(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
        """Of patterns that hold two lattices, the candidate (B,) of the branch of the scan, and
        which (B,) have disks of both in one place.
        """
        turns = self.tables.turns
        pair = self._pairs(on, sites, likeliest)
        nearest = _turns_apart(pair.turn, torch.tensor(self.branch), turns).argmin(1)
        turn = pair.turn.gather(1, nearest[:, None])[:, 0]
        candidate = turn * self.tables.scales + likeliest % self.tables.scales
        apart = _turns_apart(pair.turn[:, 0], pair.turn[:, 1], turns)
        nodes = self.tables.hk.float() @ self.tables.G[0].T
        first_ring = torch.linalg.vector_norm(nodes, dim=-1).min()
        apart_px = apart * self.tables.step * first_ring
        mixed = pair.seen & (apart_px < second_lattice.APART_RADII * self.tables.radius)
        return torch.where(pair.seen, candidate, likeliest), mixed

    def _patterns_at_a_time(self) -> int:
        """How many patterns `MAX_BYTES`, or a share of a GPU's memory, have room for."""
        sites = len(self.tables.G) * len(self.tables.sites)
        each = lattice_sites.BYTES_PER_SITE * sites + BYTES_PER_RING * self.mixture.on_gain.numel()
        return at_a_time(MAX_BYTES // each, each, self.tables.G.device.type)


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
