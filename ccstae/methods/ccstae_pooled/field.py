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

_SAMPLES = 8  # of a round
_FINAL_SAMPLES = 64  # of the covariance
_AT_A_TIME = 16  # samples in memory
_SWEEPS = 2  # over the strips, by which the mean is that of the whole scan
_FAINT = 1e-6  # information that stands for none, where the prior alone would have no density


@dataclass(frozen=True)
class Data:
    """What every pattern says by itself."""

    M: Array  # (n, 4)
    information: Array  # (n, 4, 4), next to 0 where there is no answer
    typical: Array  # (4, 4), median covariance of the answers

    @property
    def root(self) -> Array:
        return np.asarray(np.linalg.cholesky(self.information))


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
            rows.append(
                np.sqrt(term.weight)[:, None, None] * np.einsum("ab,rbs->ras", root, normal)
            )
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
        draws = self._draws(_SAMPLES)

        def samples(part: _Part) -> tuple[Factor, list[Array], list[Array]]:
            factor, alone = part.factors(self._data, self._terms)
            pull, noise = part.pull(draws), draws.data[part.strip.positions]
            posterior = factor.solve(pull + noise)
            prior = alone.solve(pull + np.sqrt(_FAINT) * noise)
            return factor, part.differences(posterior), part.differences(prior)

        sampled = side_by_side(samples, self._parts, "cpu")
        mean = self._mean([factor for factor, _, _ in sampled])
        seen = [
            Moments(
                term.operator.apply(mean),
                self._joined(term, [posterior[k] for _, posterior, _ in sampled], k),
                self._joined(term, [prior[k] for _, _, prior in sampled], k),
            )
            for k, term in enumerate(self._terms)
        ]
        for term, moments in zip(self._terms, seen, strict=True):
            term.learn(moments, self._data.typical)
        return seen

    def field(self) -> Field:
        """The field by what is learned."""
        batches = [self._draws(_AT_A_TIME) for _ in range(_FINAL_SAMPLES // _AT_A_TIME)]

        def spread(part: _Part) -> tuple[Factor, Array]:
            factor, at = part.factor(self._data, self._terms), part.strip.positions
            covariance = np.zeros((len(at), 4, 4))
            for draws in batches:
                away = factor.solve(part.pull(draws) + draws.data[at])
                covariance += np.einsum("nas,nbs->nab", away, away) / _FINAL_SAMPLES
            return factor, covariance

        spreads = side_by_side(spread, self._parts, "cpu")
        covariance = np.empty_like(self._data.information)
        for part, (_, values) in zip(self._parts, spreads, strict=True):
            covariance[part.strip.positions[part.strip.own]] = values[part.strip.own]
        return Field(self._mean([factor for factor, _ in spreads]), covariance)

    def _draws(self, samples: int) -> _Draws:
        return _Draws.of(self._generator, self._data, self._terms, samples)

    def _mean(self, factors: list[Factor]) -> Array:
        """The field's mean (n, 4): strip by strip, and then what is left of the equations of the
        whole scan likewise (restricted additive Schwarz; X.-C. Cai and M. Sarkis, SIAM J. Sci.
        Comput. 21, 792 (1999)).
        """
        data = self._data
        right = np.einsum("nab,nb->na", data.information, data.M)
        mean, left = np.zeros_like(data.M), right
        for _ in range(_SWEEPS if len(factors) > 1 else 1):
            for part, factor in zip(self._parts, factors, strict=True):
                at, own = part.strip.positions, part.strip.own
                mean[at[own]] += factor.solve(left[at])[own]
            left = right - np.einsum("nab,nb->na", data.information, mean)
            for term in self._terms:
                d = term.weight[:, None] * (term.operator.apply(mean) @ term.stiffness)
                left -= term.operator.adjoint(d)
        return mean

    def _joined(self, term: Term, seen: list[Array], k: int) -> Array:
        """Differences of all rows of the k-th term, from those that each part has of its own."""
        whole = np.zeros((len(term.weight), term.operator.components, _SAMPLES))
        for part, values in zip(self._parts, seen, strict=True):
            whole[part.rows[k][part.own_rows[k]]] = values
        return whole


@dataclass(frozen=True)
class _Part:
    """A strip's share of the terms."""

    strip: Strip
    operators: list[Operator]
    rows: list[Rows]  # of the terms
    own_rows: list[NDArray[np.bool_]]  # which of these are its own

    @classmethod
    def of(cls, strip: Strip, terms: list[Term]) -> _Part:
        inside = [term.operator.within(strip.positions) for term in terms]
        operators, rows = [operator for operator, _ in inside], [rows for _, rows in inside]
        return cls(strip, operators, rows, [strip.owns(operator.place) for operator in operators])

    def factor(self, data: Data, terms: list[Term]) -> Factor:
        """Of the field's precision, from data and terms."""
        return self.factors(data, terms, (1.0,))[0]

    def factors(
        self, data: Data, terms: list[Term], shares: tuple[float, ...] = (1.0, _FAINT)
    ) -> list[Factor]:
        """Of the field's precision, from terms and these shares of the data's information."""
        information = block_diagonal(data.information[self.strip.positions])
        prior = sum(
            operator.precision(term.weight[rows], term.stiffness)
            for term, operator, rows in zip(terms, self.operators, self.rows, strict=True)
        )
        return [Factor(prior + share * information) for share in shares]

    def pull(self, draws: _Draws) -> Array:
        """The terms' share of a perturbation, (m, 4, s)."""
        parts = zip(self.operators, self.rows, draws.rows, strict=True)
        return np.asarray(sum(operator.adjoint(draw[rows]) for operator, rows, draw in parts))

    def differences(self, samples: Array) -> list[Array]:
        """Of its own rows of each term, from samples (m, 4, s)."""
        parts = zip(self.operators, self.own_rows, strict=True)
        return [operator.apply(samples)[own] for operator, own in parts]
