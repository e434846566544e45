"""What a field's differences obey, and how it is learned from the map itself.

A difference d of a field has the cost w d^T S^-1 d. S is common to the scan; w = f u is its own:

* f makes the law a Student law, so that a jump costs little more than a kink;
* u is a local scale, common to the differences within a step or two, so that quiet areas and busy
  ones each get theirs.

Both come from the evidence (D. J. C. MacKay, Neural Comput. 4, 415 (1992)): the prior expects
E[d d^T], the data leave a part of it undetermined, and the squares of the fitted differences must
make up for the rest. S is a Kronecker product of a matrix over the derivative's direction and one
over the potential. A full matrix would drift towards a singular one beside the closures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ccstae.methods.ccstae_pooled.operators import Operator

Array = NDArray[np.float64]

MIN_RESOLVED = 2e-3  # share of the prior that data determine, at least: keeps the evidence positive
MAX_STEP = 2.0  # of log det S a round and component
MAX_SCALE = 30.0  # deviation of a difference, in those of a pattern: beyond, patterns stand alone
WINDOW = 1.5  # standard deviation of the local scale's window, in scan steps
_LOCAL_PRIOR = 2.0  # degrees of freedom by which a local scale is held at 1
_LOCAL_STEP = 0.7  # power of a round's correction, below 1 for neighbours correct each other
_MIN_LOCAL, _MAX_LOCAL = 1e-4, 30.0


@dataclass(frozen=True)
class Moments:
    """What a round knows of the differences of a term; expectations are over samples."""

    mean: Array  # (rows, components), of the fitted field
    posterior: Array  # (rows, components, samples), about that mean
    prior: Array  # (rows, components, samples)


@dataclass
class Term:
    """One kind of difference, with its scale and the weights of its rows."""

    operator: Operator
    scale: Array  # S, (components, components)
    freedom: float  # of the Student law
    learned: bool = True  # whether the scale is
    student: Array = field(init=False)  # f, (rows,)
    local: Array = field(init=False)  # u, (rows,)

    def __post_init__(self) -> None:
        self.student = np.ones(len(self.operator.place))
        self.local = np.ones(len(self.operator.place))

    @property
    def weight(self) -> Array:
        return self.student * self.local

    @property
    def stiffness(self) -> Array:
        return np.asarray(np.linalg.inv(self.scale))

    def learn(self, seen: Moments, largest: Array) -> None:
        """One round: scale, Student factors and local scale by what was seen.

        Args:
            seen: of all rows.
            largest: covariance of a pattern (4, 4), which bounds the scale.
        """
        if not self.weight.any():
            return
        stiffness, weight = self.stiffness, self.weight
        prior = _squares(seen.prior, weight)
        freedom = float(np.trace(stiffness @ prior)) / len(weight)
        energy = np.einsum("ra,ab,rb->r", seen.mean, stiffness, seen.mean)
        posterior_energy = _energy(seen.posterior, stiffness)
        resolved_energy = weight * (_energy(seen.prior, stiffness) - posterior_energy)
        if self.learned:
            fitted = np.einsum("ra,rb,r->ab", seen.mean, seen.mean, weight)
            resolved = _resolved(prior, _squares(seen.posterior, weight))
            self.scale = _stepped(self.scale, resolved, fitted + MIN_RESOLVED * prior, largest)
        square = energy + posterior_energy
        self.student = (self.freedom + freedom) / (self.freedom + self.local * square)
        expected = window(self.operator.place, resolved_energy, WINDOW)
        found = window(self.operator.place, weight * energy, WINDOW)
        ratio = (np.maximum(expected, 0) + _LOCAL_PRIOR) / (found + _LOCAL_PRIOR)
        local = np.clip(self.local * ratio**_LOCAL_STEP, _MIN_LOCAL, _MAX_LOCAL)
        self.local = local / np.exp(np.log(local).mean())


def kronecker_of(covariance: Array) -> Array:
    """1 (x) C with C the mean of the blocks of a covariance (4, 4) on the diagonal."""
    return np.kron(np.eye(2), np.einsum("jkjl->kl", covariance.reshape(2, 2, 2, 2)) / 2)


def kronecker_step(scale: Array, resolved: Array, fitted: Array) -> Array:
    """The scale D (x) C for which the prior's resolved part makes up the fitted squares, D and C
    one after the other.

    Args:
        scale: (4, 4), so far.
        resolved: sum over rows of w (prior - posterior) of d d^T, (4, 4).
        fitted: sum over rows of w d d^T of the fitted field, (4, 4).
    """
    blocks = scale.reshape(2, 2, 2, 2)
    D = np.einsum("jkik->ji", blocks)
    D = D / np.sqrt(np.linalg.det(D))
    over_D = np.linalg.inv(D)
    C = np.einsum("jkil,ij->kl", blocks, over_D) / 2
    expected, found = resolved.reshape(2, 2, 2, 2), fitted.reshape(2, 2, 2, 2)
    C = transported(
        C,
        np.einsum("jkil,ij->kl", expected, over_D),
        np.einsum("jkil,ij->kl", found, over_D),
    )
    over_C = np.linalg.inv(C)
    D = transported(
        D,
        np.einsum("jkil,lk->ji", expected, over_C),
        np.einsum("jkil,lk->ji", found, over_C),
    )
    return np.kron(D / np.sqrt(np.linalg.det(D)), C)  # all of the size is in C


def transported(scale: Array, resolved: Array, fitted: Array) -> Array:
    """G S G with the symmetric G for which G (resolved) G = fitted.

    Where the prior's squares are a quarter of those found, deviations double:

    >>> transported(np.eye(2), np.diag([1.0, 2.0]), np.diag([4.0, 2.0])).round(9)
    array([[4., 0.],
           [0., 1.]])
    """
    root = _root(fitted)
    G = root @ np.linalg.inv(_root(root @ resolved @ root)) @ root
    return np.asarray(G @ scale @ G)


def _resolved(prior: Array, posterior: Array) -> Array:
    """prior - posterior, between `MIN_RESOLVED` and all of the prior in every direction."""
    whiten = np.linalg.inv(np.linalg.cholesky(prior))
    share, axes = np.linalg.eigh(whiten @ (prior - posterior) @ whiten.T)
    back = np.linalg.inv(whiten)
    share = np.clip(share, MIN_RESOLVED, 1) + MIN_RESOLVED
    return np.asarray(back @ (axes * share) @ axes.T @ back.T)


def _stepped(scale: Array, resolved: Array, fitted: Array, largest: Array) -> Array:
    """The next scale, not further than `MAX_STEP` and `MAX_SCALE` allow."""
    new = kronecker_step(scale, resolved, fitted)
    step = (np.linalg.slogdet(new)[1] - np.linalg.slogdet(scale)[1]) / len(scale)
    new = new if abs(step) < MAX_STEP else scale * np.exp(np.sign(step) * MAX_STEP)
    return np.asarray(new * min(1.0, MAX_SCALE**2 * np.trace(largest) / np.trace(new)))


def _squares(samples: Array, weight: Array) -> Array:
    """sum_rows w E[d d^T]."""
    return np.asarray(np.einsum("ras,rbs,r->ab", samples, samples, weight)) / samples.shape[-1]


def _energy(samples: Array, stiffness: Array) -> Array:
    """E[d^T K d] of every row."""
    return np.asarray(np.einsum("ras,ab,rbs->r", samples, stiffness, samples)) / samples.shape[-1]


def window(place: Array, values: Array, width: float) -> Array:
    """Sums of the values around each place (rows, 2), under a Gaussian of height 1 and this
    standard deviation, all in scan steps.
    """
    at = np.rint(2 * place).astype(int)  # middles lie on whole and half steps
    at = at - at.min(0)
    grid = np.zeros(at.max(0) + 1)
    np.add.at(grid, (at[:, 0], at[:, 1]), values)
    smooth = gaussian_filter(grid, 2 * width, mode="constant")
    return np.asarray(2 * np.pi * (2 * width) ** 2 * smooth[at[:, 0], at[:, 1]])


def _root(matrix: Array) -> Array:
    """Symmetric square root of a positive matrix."""
    values, axes = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return np.asarray((axes * np.sqrt(np.maximum(values, 1e-12 * values.max()))) @ axes.T)
