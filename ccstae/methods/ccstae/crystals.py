"""Which entries of the dictionary are of one crystal.

A lattice looks the same after a turn by its symmetry, but the crystal need not: a grain that is
turned by more than half that angle shows the intensities of its disks permuted. It has an entry of
its own and is of one crystal with the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.intensities import CLUSTER_SPREAD

MAX_AREA_DEVIATIONS = 2.0  # by which the areas of the entries of one crystal may lie apart
MAX_NODE_DISTANCE = 0.25  # of the nearest disk's radius, within which a turned disk meets another


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
        if float((2 * (one - other) ** 2 / (one + other)).sum()) <= CLUSTER_SPREAD**2:
            return True
    return False
