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
# Over the strips, by which their means are that of the whole scan to 1 % of a deviation.
_SWEEPS = 3
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

    @property
    def weighted(self) -> Array:
        """Information times M, (n, 4)."""
        return np.asarray(np.einsum("nab,nb->na", self.information, self.M))

    def __getitem__(self, rows: Rows) -> Data:
        return Data(self.M[rows], self.information[rows], self.typical)


@dataclass(frozen=True)
class Field:
    """A fitted field."""

    mean: Array  # (n, 4)
    covariance: Array  # (n, 4, 4)


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
        self.terms = terms
        self._data, self._generator = data, generator
        self._parts = [_Part.of(strip, terms) for strip in strips]

    def round(self) -> list[Moments]:
        """What the differences of each term are now; scales and weights learn from it."""
        right = self._data.weighted

        def samples(job: _Job) -> tuple[Array, list[Array], list[Array]]:
            part, generator = job
            factor, alone = part.factors(self._data, self.terms)
            pull, noise = part.drawn(self._data, self.terms, generator, _SAMPLES)
            posterior = factor.solve(pull + noise)
            prior = alone.solve(pull + np.sqrt(_FAINT) * noise)
            mean = factor.solve(right[part.strip.positions])[part.strip.own]
            return mean, part.differences(posterior), part.differences(prior)

        sampled = side_by_side(samples, self._jobs(), "cpu")
        mean = self._joined([values for values, _, _ in sampled])
        seen = [
            Moments(
                term.operator.apply(mean),
                self._joined_rows(k, [posterior[k] for _, posterior, _ in sampled]),
                self._joined_rows(k, [prior[k] for _, _, prior in sampled]),
            )
            for k, term in enumerate(self.terms)
        ]
        for term, moments in zip(self.terms, seen, strict=True):
            term.learn(moments, self._data.typical)
        return seen

    def field(self) -> Field:
        """The field by what is learned.

        Its mean is that of every strip by itself, and then what is left of the equations of the
        whole scan likewise (restricted additive Schwarz; X.-C. Cai and M. Sarkis, SIAM J. Sci.
        Comput. 21, 792 (1999)). Factors are made anew in every sweep, for those of a large scan do
        not fit in memory.
        """

        def spread(job: _Job) -> Array:
            part, generator = job
            factor, own = part.factor(self._data, self.terms), part.strip.own
            covariance = np.zeros((own.sum(), 4, 4))
            for _ in range(_FINAL_SAMPLES // _AT_A_TIME):
                pull, noise = part.drawn(self._data, self.terms, generator, _AT_A_TIME)
                away = factor.solve(pull + noise)[own]
                covariance += away @ np.swapaxes(away, 1, 2) / _FINAL_SAMPLES
            return covariance

        covariance = self._joined(side_by_side(spread, self._jobs(), "cpu"))
        mean = np.zeros_like(self._data.M)
        for _ in range(_SWEEPS if len(self._parts) > 1 else 1):
            left = self._left(mean)

            def change(part: _Part, left: Array = left) -> Array:
                factor = part.factor(self._data, self.terms)
                return factor.solve(left[part.strip.positions])[part.strip.own]

            mean += self._joined(side_by_side(change, self._parts, "cpu"))
        return Field(mean, covariance)

    def _jobs(self) -> list[_Job]:
        """The strips, each with random numbers of its own."""
        if len(self._parts) == 1:
            return [(self._parts[0], self._generator)]
        return list(zip(self._parts, self._generator.spawn(len(self._parts)), strict=True))

    def _left(self, mean: Array) -> Array:
        """What the equations of the whole scan leave (n, 4) of this mean (n, 4)."""
        left = self._data.weighted - np.einsum("nab,nb->na", self._data.information, mean)
        for term in self.terms:
            d = term.weight[:, None] * (term.operator.apply(mean) @ term.stiffness)
            left -= term.operator.adjoint(d)
        return left

    def _joined(self, values: list[Array]) -> Array:
        """Values of all positions, from those that each strip has of its own."""
        whole = np.empty((len(self._data.M), *values[0].shape[1:]))
        for part, own in zip(self._parts, values, strict=True):
            whole[part.strip.positions[part.strip.own]] = own
        return whole

    def _joined_rows(self, k: int, seen: list[Array]) -> Array:
        """Differences of all rows of the k-th term, from those that each strip has of its own."""
        whole = np.zeros((len(self.terms[k].weight), *seen[0].shape[1:]))
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

    def drawn(
        self, data: Data, terms: list[Term], generator: np.random.Generator, n: int
    ) -> tuple[Array, Array]:
        """Shares of the terms and of the data in n perturbations, each (m, 4, n)."""
        at = self.strip.positions
        normal = np.empty((len(at), 4, n))
        # in scan order, whatever the order in which positions are solved
        normal[np.argsort(at)] = generator.standard_normal(normal.shape)
        noise = np.linalg.cholesky(data.information[at]) @ normal
        pull = np.zeros_like(noise)
        for term, operator, rows in zip(terms, self.operators, self.rows, strict=True):
            root = np.linalg.cholesky(term.stiffness)
            normal = generator.standard_normal((len(rows), len(root), n))
            pull += operator.adjoint(np.sqrt(term.weight[rows])[:, None, None] * (root @ normal))
        return pull, noise

    def differences(self, samples: Array) -> list[Array]:
        """Of its own rows of each term, from samples (m, 4, s)."""
        parts = zip(self.operators, self.own_rows, strict=True)
        return [operator.apply(samples)[own] for operator, own in parts]


_Job = tuple[_Part, np.random.Generator]
