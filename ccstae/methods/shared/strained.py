"""Lattices that are strained beyond what a turned and scaled nominal lattice meets.

A pattern that shows much less of a lattice than the others of its scan may hold one that is
strained by up to 12 %. It is sought beside the likeliest candidate.

Disks of a lattice that is sheared by more than their radius over their distance from the beam lie
beside the boxes of every turn and scale. Such a lattice is sought from the likeliest of these: the
first ring alone, which strain moves least, takes all shears up to `MAX_STRAIN`, and all rings
together then the steps that the first cannot tell. A step moves the outermost disk by half a
radius, which the methods that begin there can do with.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ccstae.methods.shared.beams import Beams
from ccstae.methods.shared.site_evidence import MIN_EVIDENCE, Mixture
from ccstae.methods.shared.site_tables import at_sites

MAX_STRAIN = 0.12
"""Largest principal strain that is sought: as far as other methods follow a rough lattice."""
# Of the log odds, against the direct beam, that the lattices of a scan have: a pattern with less
# may have lost disks, and a strained lattice must gain as much. At low dose, half is beyond what
# chance takes from a pattern and what it then gives to one lattice of hundreds.
MIN_SHARE_OF_ODDS = 0.5
FINER_ROUNDS = 2  # steps with all rings, from where the first ring ends
_TURNS, _SCALES = 2, 1  # steps either way beside the shears of the first ring
_PLACES = 31  # round a circle; a prime, so that the disks of no lattice meet all alike
# The profile is read at whole pixels to this many times the outermost node's distance.
_BEYOND = 1.25

Score = Callable[[Tensor, Tensor], Tensor]


def sought(
    mixture: Mixture,
    beams: Beams,
    sums: Tensor,
    centre: Tensor,
    candidate: Tensor,
    odds: Tensor,
    evidence: Tensor,
    own: Tensor,
    direct: Tensor,
) -> tuple[Tensor, Tensor]:
    """Lattices (B, 2, 2) of patterns and the evidence (B,) for them: strained ones where candidates
    show little and these gain much in log odds, the candidates elsewhere.

    Args:
        mixture: of the scan. One that knows no odds of its lattices, or of disks that touch, seeks
            none.
        beams: of the scan.
        sums: box sums (B, Qy, Qx).
        centre: beams (B, 2), in pixels.
        candidate: the likeliest (B,).
        odds: its log odds (B,), over the scatter of the scan.
        evidence: for it (B,).
        own: how box sums of a pattern scatter beyond those of the scan (B,).
        direct: counts (B,) of the direct beams.
    """
    tables = mixture.tables
    G = tables.G[candidate]
    least = MIN_SHARE_OF_ODDS * mixture.odds_per_count * direct
    row = (odds < least).nonzero()[:, 0]
    if len(row) and mixture.odds_per_count and not tables.dark.any():
        G[row], evidence[row] = _likelier(
            mixture,
            beams,
            sums[row],
            centre[row],
            candidate[row],
            evidence[row],
            own[row],
            least[row],
        )
    return G, evidence


def _likelier(
    mixture: Mixture,
    beams: Beams,
    sums: Tensor,
    centre: Tensor,
    candidate: Tensor,
    evidence: Tensor,
    own: Tensor,
    least: Tensor,
) -> tuple[Tensor, Tensor]:
    """`sought` of patterns whose candidates show little: a strained lattice must gain more than
    `least` (B,) in log odds.
    """
    tables = mixture.tables
    nominal = tables.G[tables.scales // 2]
    lengths = torch.linalg.vector_norm(tables.sites @ nominal.T, dim=-1)
    n, whole = at_sites(beams, sums, centre, *_circles(float(lengths.max()), str(tables.G.device)))
    profile = n.sum(1) / whole.sum(1).clamp_min(1)
    on_gain, ring_gain = mixture.on_gain[candidate, None], mixture.ring_gain[candidate, None]

    def score(G: Tensor, nodes: Tensor) -> Tensor:
        hk, ring = tables.sites[nodes], tables.ring[nodes]
        n, whole = at_sites(beams, sums, centre, G, hk)
        even = whole * _at_distance(profile, G, hk)
        on, even = (ring.T @ n).mT, (ring.T @ even).mT
        return (on * on_gain + even * ring_gain).sum(-1) / mixture.scatter

    G = tables.G[candidate]
    before = score(G[:, None], torch.ones_like(lengths, dtype=torch.bool))[:, 0]
    found, odds, tried = _search(score, G, lengths, tables.radius)
    gain = odds - before - math.log(tried) - MIN_EVIDENCE
    use = (gain > least) & _within_reach(found, nominal)
    of_found = odds / own - math.log(tried * len(tables.G))
    return torch.where(use[:, None, None], found, G), torch.where(use, of_found, evidence)


def _search(score: Score, G: Tensor, lengths: Tensor, radius: float) -> tuple[Tensor, Tensor, int]:
    """The likeliest strained lattices, from the likeliest turns and scales.

    Args:
        score: log odds (B, K) of lattices (B, K, 2, 2) by the nodes of a mask (S,).
        G: where the search begins, (B, 2, 2).
        lengths: distances (S,) of the nodes from the beam in pixels.
        radius: of a disk, pixels.

    Returns:
        Lattices (B, 2, 2), their log odds (B,), and how many lattices a pattern was tried with.
    """
    first = lengths < 1.01 * lengths.min()
    every = torch.ones_like(first)
    rounds = [(first, MAX_STRAIN, _TURNS, _SCALES), *[(every, 0.0, 1, 1)] * FINER_ROUNDS]
    row = torch.arange(len(G), device=G.device)
    odds, tried = torch.zeros_like(G[:, 0, 0]), 0
    for nodes, shear, turns, scales in rounds:
        step = radius / 2 / float(lengths[nodes].max())
        trial = _changes(step, max(shear, step), turns, scales).to(G) @ G[:, None]
        of_trial = score(trial, nodes)
        best = of_trial.argmax(1)
        G, odds = trial[row, best], of_trial[row, best]
        tried += trial.shape[1]
    return G, odds, tried


def _changes(step: float, shear: float, turns: int, scales: int) -> Tensor:
    """The matrices (N, 2, 2) of small turns, scales and shears in whole steps: shears to `shear`,
    turns and scales to so many steps either way.

    >>> len(_changes(0.1, 0.1, 0, 0)), len(_changes(0.1, 0.1, 1, 1))
    (5, 45)
    """
    most = math.floor(shear / step)
    index = torch.arange(-most, most + 1)
    pairs = torch.cartesian_prod(index, index)
    pairs = pairs[(pairs**2).sum(1) <= most**2]
    turn, scale = torch.arange(-turns, turns + 1), torch.arange(-scales, scales + 1)
    part = torch.arange(len(pairs))
    at, turned, scaled = torch.cartesian_prod(part, turn, scale).unbind(1)
    along, across = pairs[at].unbind(1)
    rows = [scaled + along, across - turned, across + turned, scaled - along]
    return torch.eye(2) + step * torch.stack(rows, 1).reshape(-1, 2, 2)


def _within_reach(G: Tensor, nominal: Tensor) -> Tensor:
    """Whether (B,) lattices (B, 2, 2) differ from the nominal one (2, 2) by no more than
    `MAX_STRAIN` and a turn.
    """
    stretch = torch.linalg.svdvals(G @ torch.linalg.inv(nominal))
    return ((stretch - 1).abs() <= MAX_STRAIN).all(1)


def _circles(longest: float, device: str) -> tuple[Tensor, Tensor]:
    """What reads the mean of an image at each whole distance in pixels, as lattices (1, D, 2, 2)
    and nodes (P, 2).
    """
    angle = torch.arange(_PLACES, device=device) * (2 * math.pi / _PLACES)
    distance = torch.arange(math.ceil(_BEYOND * longest) + 1, device=device)
    G = distance[:, None, None] * torch.eye(2, device=device)
    return G[None], torch.stack([angle.cos(), angle.sin()], 1)


def _at_distance(profile: Tensor, G: Tensor, hk: Tensor) -> Tensor:
    """Values (B, S, K) of profiles (B, D), one value a pixel, at the nodes `hk` (S, 2) of lattices
    (B, K, 2, 2).
    """
    x, y = torch.einsum("bkij,sj->ibsk", G, hk)
    pixel = (x * x + y * y).sqrt_().round_().clamp_(max=profile.shape[1] - 1).long()
    return profile.gather(1, pixel.flatten(1)).reshape(pixel.shape)
