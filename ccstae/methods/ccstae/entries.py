"""The sparse code: how many entries the dictionary has, and which one a pattern belongs to.

An entry is a set of disk intensities. The entry of a pattern is read from its intensities and from
the size of its cell, since materials differ in both. Cells of two sizes alone are no two entries,
so that grains of different strain are not taken for different materials: their intensities must
differ, by more than strain changes them. In noise, the size of the cell says best whose intensities
to compare.

A lattice looks the same after a turn by its symmetry, but the crystal need not: a grain that is
turned by more than half that angle shows the intensities of its disks permuted. It has an entry of
its own and is of one crystal with the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import State

MAX_ENTRIES = 4
MIN_ENTRY_SHARE = 0.02  # of the patterns
MIN_PATTERNS_PER_ENTRY = 20
MAX_SIZE_OFF = 6.0  # median distances from the median size, 4 deviations of a normal law
MAX_TURNS_APART_RAD = math.radians(15)  # half of what permutes the disks of a hexagonal lattice
MIN_SIGNIFICANCE = 5.0  # deviations of chi^2, by which the intensities of two entries differ
MIN_AREA_DEVIATION = 1e-3  # deviation of log det M within an entry
MIN_SPREAD = 0.02  # relative; what strain alone does to the intensities
MAX_SPREAD = 0.5
SHARE_TOLERANCE = 1e-3  # change of the patterns' shares in the entries that ends the learning
# Relative spread within an entry: what strain, place and neighbours do to the intensities.
_CLUSTER_SPREAD = 0.1
MAX_AREA_DEVIATIONS = 2.0  # by which the areas of the entries of one crystal may lie apart
MAX_NODE_DISTANCE = 0.25  # of the nearest disk's radius, within which a turned disk meets another


@dataclass(frozen=True)
class LogArea:
    """log det M of n patterns, the size of the reciprocal cell against the nominal one."""

    value: Float64[Tensor, " n"]
    variance: Float64[Tensor, " n"]


def cluster(
    intensity: Tensor, variance: Tensor, max_entries: int = MAX_ENTRIES
) -> tuple[Tensor, Tensor]:
    """Sparse code over disk intensities.

    A mixture of E normal clusters of relative intensities is fitted by expectation maximisation,
    for E = 1, 2, ... The variance in a cluster is that of the expected counts plus a relative
    spread. The number of clusters is the one with the lowest Bayesian information criterion (G.
    Schwarz, Ann. Stat. 6, 461 (1978)).

    Args:
        intensity: counts in the disks (n, K).
        variance: their variances (n, K).
        max_entries: largest E.

    Returns:
        The entries' relative intensities (E, K), and the log odds of each for each pattern (n, E).
    """
    measured = Relative.of(intensity, variance)
    n, K = measured.x.shape
    best, lowest = None, float("inf")
    order = torch.argsort(measured.main_axis())
    for E in range(1, max_entries + 1):
        if E > 1 and n < MIN_PATTERNS_PER_ENTRY * E:
            break
        share = measured.x.new_zeros(n, E)
        share[order, torch.arange(n, device=share.device) * E // n] = 1.0
        for _ in range(60):
            weight = share.sum(0).clamp_min(1e-9)
            centre, _ = measured.means(share)
            logp = measured.log_density(centre) + (weight / n).log()
            new_share = logp.softmax(1)
            if (new_share - share).abs().max() < SHARE_TOLERANCE:
                break
            share = new_share
        if weight.min() < MIN_ENTRY_SHARE * n:
            continue
        log_n = float(torch.tensor(float(n)).log())
        bic = -2 * float(logp.logsumexp(1).sum()) + (E * K + E - 1) * log_n
        if bic < lowest:
            lowest, best = bic, (centre.to(intensity.dtype), logp)
    assert best is not None
    return best


@dataclass(frozen=True)
class Relative:
    """Relative intensities of n patterns, and the variance of clusters of them: that of the
    expected counts, plus a relative spread.
    """

    x: Float64[Tensor, "n K"]
    background: Float64[Tensor, "n K"]  # the background's part of their variance
    total: Float[Tensor, "n 1"]  # counts in all disks

    @staticmethod
    def of(intensity: Tensor, variance: Tensor) -> Relative:
        """From counts in the disks (n, K) and their variances."""
        total = intensity.sum(1, keepdim=True).clamp_min(1e-9)
        background = background_variance(intensity, variance) / total**2
        return Relative((intensity / total).double(), background.double(), total)

    def precision(self, centre: Tensor) -> Tensor:
        """One over the variances of the patterns about centres (E, K), (n, E, K)."""
        at_least = centre.clamp_min(0.2 * centre.mean())
        return 1 / (
            self.background[:, None]
            + at_least / self.total[:, None]
            + (_CLUSTER_SPREAD * at_least) ** 2
        )

    def means(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (E, K) of clusters in which the patterns have shares (n, E), and the information
        that they rest on.
        """
        centre = self.x.mean(0).expand(share.shape[1], -1)
        for _ in range(2):
            weighted = share[..., None] * self.precision(centre)
            information = weighted.sum(0).clamp_min(1e-30)
            centre = (weighted * self.x[:, None]).sum(0) / information
        return centre, information

    def log_density(self, centre: Tensor) -> Tensor:
        """Of the patterns about centres (E, K), (n, E). A Student law is bounded: one odd disk must
        not decide.
        """
        precision = self.precision(centre)
        z2 = (self.x[:, None] - centre) ** 2 * precision
        return -0.5 * (9 * torch.log1p(z2 / 9)).sum(2) + 0.5 * precision.log().sum(2)

    def main_axis(self) -> Tensor:
        """Projection (n,) of whitened intensities on their first principal axis, along which
        clusters lie apart if any do.
        """
        v = self.background + self.x.mean(0) / self.total
        white = (self.x - self.x.mean(0)) / (v.mean(0) + 1e-12).sqrt()
        white = white.nan_to_num(0.0, 0.0, 0.0)  # fits that diverged lie apart from none
        return white @ torch.linalg.eigh(white.T @ white)[1][:, -1]


def told_apart_by_area(
    relative: Relative, measured: LogArea
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Two entries where the intensities differ with the size of the cell.

    The size of the cell says nothing of the counts in the disks, so it may choose whose intensities
    are compared. One chi^2 then judges the difference. A mixture of intensities must also find out
    which pattern is of which entry: in noise it needs several times as many patterns. The sizes are
    taken for a mixture of two. With the shares s of the patterns in these, the intensities of the
    entries are the weighted regression of the patterns' on s, free of the patterns that the sizes
    put wrong.

    Args:
        relative: intensities of n patterns.
        measured: size of their cells.

    Returns:
        Entries and odds as `cluster` gives them, and the log areas of the entries, (2, 2). None
        where there is one set of intensities. Those of the two, a and b, must differ by 5
        deviations of chi^2, and by sum_k (a_k - b_k)^2 / x_k > 0.1^2 beyond noise, with x the mean
        of all patterns. Strain does not reach that.
    """
    share = _two_sizes(measured)
    n, K = relative.x.shape
    if share.sum(0).min() < max(MIN_PATTERNS_PER_ENTRY, MIN_ENTRY_SHARE * n):
        return None
    precision = relative.precision(relative.x.mean(0, keepdim=True))[:, 0]
    information = torch.einsum("ne,nk,nf->kef", share, precision, share)
    weighted = torch.einsum("ne,nk,nk->ke", share, precision, relative.x)
    covariance, singular = torch.linalg.inv_ex(information)
    if singular.any():  # one size
        return None
    centre = (covariance @ weighted[..., None])[..., 0].T
    variance = (covariance * covariance.new_tensor([[1, -1], [-1, 1]])).sum((1, 2))
    squares = (centre[0] - centre[1]) ** 2
    mean = relative.x.mean(0).clamp_min(1e-9)
    chi2, difference, noise = (
        float(each.sum()) for each in (squares / variance, squares / mean, variance / mean)
    )
    differ = (
        chi2 > K + MIN_SIGNIFICANCE * (2 * K) ** 0.5
        and noise < _CLUSTER_SPREAD**2
        and difference - noise > _CLUSTER_SPREAD**2
    )
    if not differ:
        return None
    return centre, relative.log_density(centre) + share.mean(0).log(), _area(share, measured)


def is_of_one_orientation(M: Tensor) -> bool:
    """Whether all but a few of the lattices (n, 2, 2) are turned alike. A grain that is turned by
    more than half the angle of the lattice's symmetry shows its intensities permuted: where there
    are such grains, each of a strain of its own, intensities differ with the size of the cell in
    one material too.
    """
    turn = torch.atan2(M[:, 1, 0] - M[:, 0, 1], M[:, 0, 0] + M[:, 1, 1]).double()
    low, high = turn.quantile(turn.new_tensor([MIN_ENTRY_SHARE, 1 - MIN_ENTRY_SHARE]))
    return float(high - low) < MAX_TURNS_APART_RAD


def _two_sizes(measured: LogArea) -> Tensor:
    """Shares (n, 2) of the patterns in a mixture of two normal laws of the size of the cell, of one
    deviation, by expectation maximisation from its smaller and its larger half. Patterns far from
    all others have no share.
    """
    x = measured.value
    n = len(x)
    off = (x - x.median()).abs()
    within = (off <= MAX_SIZE_OFF * off.median()).double()[:, None]
    share = x.new_zeros(n, 2)
    share[torch.argsort(x), torch.arange(n, device=x.device) * 2 // n] = 1.0
    share *= within
    for _ in range(60):
        mean, deviation = _area(share, measured).T
        # Two deviations would let one law cover both sizes.
        variance = (share.mean(0) * deviation**2).sum() + measured.variance[:, None]
        z2 = (x[:, None] - mean) ** 2 / variance
        share = (share.mean(0).log() - 0.5 * z2).softmax(1) * within
    return share


def background_variance(intensity: Tensor, variance: Tensor) -> Tensor:
    """The background's part of the variance of intensities, (n, K).

    The other part is Poisson's, the counts of the disk itself. For it an entry's expected counts
    are used: measured counts would state a small variance where they are few by chance.
    """
    return (variance - intensity).clamp_min(0)


def log_area(M: Tensor, covariance: Tensor) -> LogArea:
    """log det M and its variance, from M (n, 2, 2) and its covariance (n, 4, 4); d log det M =
    tr(M^-1 dM).
    """
    M = M.double()
    slope = torch.linalg.inv(M).transpose(1, 2).reshape(-1, 4)
    variance = torch.einsum("na,nab,nb->n", slope, covariance, slope)
    return LogArea(torch.linalg.det(M).clamp_min(1e-6).log(), variance)


def area_odds(area: Tensor, measured: LogArea) -> Tensor:
    """Log odds (n, E) of entries whose patterns have log areas of mean and deviation `area` (E, 2),
    from the log areas measured.
    """
    variance = area[:, 1] ** 2 + measured.variance[:, None]
    z2 = (measured.value[:, None] - area[:, 0]) ** 2 / variance
    return -0.5 * (9 * torch.log1p(z2 / 9) + variance.log())


def likeliest(odds: Tensor, area: Tensor, measured: LogArea) -> Tensor:
    """The entry (n,) that intensities, by their log odds (n, E), and the size of the cell speak for
    together; `area` is that of the dictionary, (E, 2).
    """
    return (odds + area_odds(area, measured)).argmax(1)


def areas(odds: Tensor, measured: LogArea) -> Tensor:
    """Mean and deviation (E, 2) of the log area of the patterns of each entry, by expectation
    maximisation from the log odds of the intensities (n, E).

    Materials differ in their lattice as well as in their intensities. Where they do not, the
    deviations are alike and the areas decide nothing.
    """
    x, v = measured.value, measured.variance
    # One pattern alone has no deviation.
    deviation = x.std() if len(x) > 1 else torch.zeros_like(x.sum())
    area = torch.stack([x.mean(), deviation.clamp_min(MIN_AREA_DEVIATION)])
    area = area.expand(odds.shape[1], 2)
    for _ in range(30):
        share = (odds + area_odds(area, measured)).softmax(1)
        weight = share / (area[:, 1] ** 2 + v[:, None])
        area = _area(share, measured, weight)
    return area


def _area(share: Tensor, measured: LogArea, weight: Tensor | None = None) -> Tensor:
    """Mean and deviation (E, 2) of the log area of entries in which the patterns have shares
    (n, E); the mean by other weights where given.
    """
    x, v = measured.value[:, None], measured.variance[:, None]
    weight = share if weight is None else weight
    mean = (weight * x).sum(0) / weight.sum(0)
    beyond = (share * ((x - mean) ** 2 - v)).sum(0) / share.sum(0)
    return torch.stack([mean, beyond.clamp_min(MIN_AREA_DEVIATION**2).sqrt()], 1)


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
    centre, odds = cluster(state.intensity[:, 1:], variance[:, 1:], max_entries)
    measured = log_area(state.M, covariance)
    area = areas(odds, measured)
    if len(centre) == 1 and max_entries > 1 and is_of_one_orientation(state.M):
        intensities = Relative.of(state.intensity[:, 1:], variance[:, 1:])
        two = told_apart_by_area(intensities, measured)
        if two is not None:
            centre, odds, area = two[0].to(centre), two[1], two[2]
    label = likeliest(odds, area, measured)
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


def crystals(dictionary: Dictionary, symmetry: int) -> Tensor:
    """Which crystal (E,) each entry is of, numbered from 0 in the order of the entries.

    Entries e and f are of one crystal where, after a turn of the lattice by a multiple of 2 pi / n
    that takes disk k to disk k', the shares a of the diffracted counts that both show agree,
    sum_k 2 (a_ek - a_fk')^2 / (a_ek + a_fk') <= 0.1^2, and their cells are of one size.

    Args:
        dictionary: the entries.
        symmetry: n, the order of the lattice's rotational symmetry.
    """
    count = len(dictionary.intensity)
    of = list(range(count))
    for f in range(count):
        for e in range(f):
            if of[e] != of[f] and _same_crystal(dictionary, e, f, symmetry):
                of = [of[e] if one == of[f] else one for one in of]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(of))}
    return torch.tensor([numbers[one] for one in of], device=dictionary.intensity.device)


def _same_crystal(dictionary: Dictionary, e: int, f: int, symmetry: int) -> bool:
    """Whether two entries differ by no more than a turn of the lattice."""
    apart = float((dictionary.area[e, 0] - dictionary.area[f, 0]).abs())
    if apart > MAX_AREA_DEVIATIONS * float(dictionary.area[[e, f], 1].sum()):
        return False
    g, intensity = dictionary.g[1:], dictionary.intensity[:, 1:].double()
    reach = MAX_NODE_DISTANCE * float(g.norm(dim=1).min())
    for turn in range(symmetry):
        angle = 2 * math.pi * turn / symmetry
        rotation = g.new_tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        distance, to = torch.cdist(g @ rotation.T, g).min(1)
        shown = distance < reach  # others are turned off the detector
        one, other = intensity[e, shown], intensity[f, to[shown]]
        one, other = one / one.sum(), other / other.sum()
        if float((2 * (one - other) ** 2 / (one + other)).sum()) <= _CLUSTER_SPREAD**2:
            return True
    return False
