"""One field for a scan: what its patterns say, and what its differences obey.

Patterns say that M is normal with mean M_i and information Lambda_i; differences d cost
w d^T S^-1 d (`law`). Given S and w the field x is normal, with the precision of both together.
Expectations are over samples: perturb the data and the differences by the noise they have, and
solve (G. Papandreou and A. L. Yuille, NIPS 23 (2010)). Samples of prior and posterior share their
random numbers, so that what the data resolve, the difference of both, scatters little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccstae.machine.device import side_by_side
from ccstae.methods.ccstae_pooled.law import Moments, Term
from ccstae.methods.ccstae_pooled.operators import Operator
from ccstae.methods.ccstae_pooled.tiles import Factor, Strip, block_diagonal

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_SAMPLES = 4  # of a round
_FINAL_SAMPLES = 64  # of the covariance
_AT_A_TIME = 16  # samples in memory
_FAINT = 1e-6  # information that stands for none, where the prior alone would have no density


@dataclass(frozen=True)
class Data:
    """What every pattern says by itself."""

    M: Array  # (n, 4)
    information: Array  # (n, 4, 4), next to 0 where there is no answer
    typical: Array  # (4, 4), median covariance of the answers

    @property
    def root(self) -> Array:
        return np.linalg.cholesky(self.information)


@dataclass(frozen=True)
class Field:
    """A fitted field."""

    mean: Array  # (n, 4)
    covariance: Array  # (n, 4, 4)


@dataclass(frozen=True)
class _Draws:
    """Random numbers of a round: of the data (n, 4, s) and of the rows of each term."""

    data: Array
    rows: list[Array]

    @classmethod
    def of(cls, generator: np.random.Generator, data: Data, terms: list[Term], n: int) -> _Draws:
        noise = np.einsum("nab,nbs->nas", data.root, generator.standard_normal((*data.M.shape, n)))
        rows = []
        for term in terms:
            root = np.linalg.cholesky(term.stiffness)
            normal = generator.standard_normal((len(term.weight), len(root), n))
            rows.append(np.sqrt(term.weight)[:, None, None] * np.einsum("ab,rbs->ras", root, normal))
        return cls(noise, rows)


class Fit:
    """A field being learned.

    Args:
        data: of the n positions held.
        terms: start values; they hold what is learned.
        strips: that cover the scan.
        generator: of the samples.
    """

    def __init__(
        self, data: Data, terms: list[Term], strips: list[Strip], generator: np.random.Generator
    ) -> None:
        self._data, self._terms, self._generator = data, terms, generator
        self._parts = [_Part.of(strip, terms) for strip in strips]

    def round(self) -> list[Moments]:
        """What the differences of each term are now; scales and weights learn from it."""
        data, terms, parts = self._data, self._terms, self._parts
        draws = _Draws.of(self._generator, data, terms, _SAMPLES)
        seen = side_by_side(lambda part: part.moments(data, terms, draws), parts, "cpu")
        whole = [
            _joined(term, parts, [moments[k] for moments in seen], k)
            for k, term in enumerate(terms)
        ]
        for term, moments in zip(terms, whole, strict=True):
            term.learn(moments, data.typical)
        return whole

    def field(self) -> Field:
        """The field by what is learned."""
        data, terms = self._data, self._terms
        batches = [
            _Draws.of(self._generator, data, terms, _AT_A_TIME)
            for _ in range(_FINAL_SAMPLES // _AT_A_TIME)
        ]
        solved = side_by_side(lambda part: part.field(data, terms, batches), self._parts, "cpu")
        mean, covariance = np.empty_like(data.M), np.empty_like(data.information)
        for part, found in zip(self._parts, solved, strict=True):
            mine = part.strip.positions[part.own]
            mean[mine], covariance[mine] = found.mean[part.own], found.covariance[part.own]
        return Field(mean, covariance)


@dataclass(frozen=True)
class _Part:
    """A strip's share of the terms."""

    strip: Strip
    own: NDArray[np.bool_]  # which of its positions are its own
    operators: list[Operator]
    rows: list[Rows]  # of the terms
    own_rows: list[NDArray[np.bool_]]  # which of these are its own

    @classmethod
    def of(cls, strip: Strip, terms: list[Term]) -> _Part:
        inside = [term.operator.within(strip.positions) for term in terms]
        own_rows = [strip.owns(operator.place) for operator, _ in inside]
        return cls(
            strip, strip.own, [op for op, _ in inside], [rows for _, rows in inside], own_rows
        )

    def prior(self, terms: list[Term]):
        """The precision that the terms give the field."""
        return sum(
            operator.precision(term.weight[rows], term.stiffness)
            for term, operator, rows in zip(terms, self.operators, self.rows, strict=True)
        )

    def pull(self, draws: _Draws) -> Array:
        """The prior's share of a perturbation, (m, 4, s)."""
        return np.asarray(
            sum(
                operator.adjoint(draw[rows])
                for operator, rows, draw in zip(
                    self.operators, self.rows, draws.rows, strict=True
                )
            )
        )

    def moments(self, data: Data, terms: list[Term], draws: _Draws) -> list[Moments]:
        """What its own rows of each term show."""
        at = self.strip.positions
        prior, information = self.prior(terms), block_diagonal(data.information[at])
        pull, noise = self.pull(draws), draws.data[at]
        seen = np.einsum("nab,nb->na", data.information[at], data.M[at])[..., None]
        posterior = Factor(prior + information).solve(np.concatenate([seen, pull + noise], -1))
        alone = Factor(prior + _FAINT * information).solve(pull + np.sqrt(_FAINT) * noise)
        moments = []
        for operator, own in zip(self.operators, self.own_rows, strict=True):
            d = operator.apply(posterior)[own]
            moments.append(Moments(d[..., 0], d[..., 1:], operator.apply(alone)[own]))
        return moments

    def field(self, data: Data, terms: list[Term], batches: list[_Draws]) -> Field:
        """Mean and covariance at all its positions."""
        at = self.strip.positions
        factor = Factor(self.prior(terms) + block_diagonal(data.information[at]))
        mean = factor.solve(np.einsum("nab,nb->na", data.information[at], data.M[at]))
        covariance = np.zeros((len(at), 4, 4))
        for draws in batches:
            away = factor.solve(self.pull(draws) + draws.data[at])
            covariance += np.einsum("nas,nbs->nab", away, away) / _FINAL_SAMPLES
        return Field(mean, covariance)


def _joined(term: Term, parts: list[_Part], seen: list[Moments], k: int) -> Moments:
    """Moments of all rows of the k-th term, from those that each part has of its own."""
    rows, components = len(term.weight), term.operator.components
    whole = Moments(
        np.zeros((rows, components)),
        np.zeros((rows, components, _SAMPLES)),
        np.zeros((rows, components, _SAMPLES)),
    )
    for part, moments in zip(parts, seen, strict=True):
        mine = part.rows[k][part.own_rows[k]]
        whole.mean[mine] = moments.mean
        whole.posterior[mine] = moments.posterior
        whole.prior[mine] = moments.prior
    return whole
