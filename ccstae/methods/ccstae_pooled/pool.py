"""Deformation shared between neighbours, without blurring edges.

Every pattern knows its lattice M as a normal law, with mean M_i and information Lambda_i.
Neighbours are alike: the differences along a link follow a Student law of scale S. Its weights say
how much a link holds, so a jump costs no more than a kink and edges stay. With

    sum_i (x_i - M_i)^T Lambda_i (x_i - M_i) + sum_links w_l (x_i - x_j)^T S^-1 (x_i - x_j)

the field x is normal given the weights; w and S are learned from the map itself by expectation
maximisation (K. L. Lange, R. J. A. Little and J. M. G. Taylor, J. Am. Stat. Assoc. 84, 881 (1989)).
Expectations are over samples of the field. Each sample costs one more linear system: perturb the
data, solve (G. Papandreou and A. L. Yuille, NIPS 23 (2010)). The systems are sparse and factorised
once a round. Patterns are believed as they state themselves, for a Student law for them too would
take what is sharp, such as the crest of a ripple, for an error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Array = NDArray[np.float64]

LOG_VOLUME_TOLERANCE = 0.002  # change of log det S that ends the learning
MIN_DIFFERENCE_SCALE = 1e-5  # standard deviation of a difference
_LINK_FREEDOM = 2.0  # degrees of freedom of the differences: edges are no surprise
_ROUNDS = 100
_SAMPLES = 32


def pool(M: Array, information: Array, solved: NDArray[np.bool_], seed: int) -> tuple[Array, Array]:
    """Fit one field to the lattices of a scan.

    Args:
        M: lattices (n, 4) of the solved patterns, in scan order.
        information: their information (n, 4, 4).
        solved: which positions of the scan these are, (Ry, Rx), with n true.
        seed: of the samples.

    Returns:
        Pooled lattices (n, 4) and their covariance (n, 4, 4).
    """
    n = len(M)
    i, j = links(solved)
    generator = np.random.default_rng(seed)
    ends = sparse.csr_array(
        (np.tile([-1.0, 1.0], len(i)), (np.arange(len(i)).repeat(2), np.stack([i, j], 1).ravel())),
        (len(i), n),
    )
    difference = sparse.kron(ends, sparse.eye_array(4), "csr")  # (4 links, 4 n)
    root = np.linalg.cholesky(information)
    variances = np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)
    scale = 0.1 * np.diag(np.median(variances, 0))
    weight, data = np.ones(len(i)), _block_diagonal(information)
    for _ in range(_ROUNDS):
        stiffness = np.linalg.inv(scale)
        prior = _block_diagonal(weight[:, None, None] * stiffness)
        factors = splu(
            (data + difference.T @ prior @ difference).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            options={"SymmetricMode": True},
        )
        # Perturbed by the noise that data and prior say they have, solutions scatter about the mean
        # as the field does.
        noise = np.einsum("nab,snb->sna", root, _paired_draws(generator, n))
        link_draws = _paired_draws(generator, len(i)) @ np.linalg.cholesky(stiffness).T
        link_noise = np.sqrt(weight)[:, None] * link_draws
        right = noise.reshape(_SAMPLES, -1) + (difference.T @ link_noise.reshape(_SAMPLES, -1).T).T
        mean = factors.solve(data @ M.ravel()).reshape(n, 4)
        away = factors.solve(np.ascontiguousarray(right.T)).T.reshape(_SAMPLES, n, 4)
        d = (mean + away)[:, j] - (mean + away)[:, i]
        squares = np.einsum("sla,ab,slb->l", d, stiffness, d) / _SAMPLES
        weight = (_LINK_FREEDOM + 4) / (_LINK_FREEDOM + squares)
        # A field of n positions has n - 1 free differences, however many links there are.
        before = scale
        spread = np.einsum("sla,slb,l->ab", d, d, weight) / (_SAMPLES * max(n - 1, 1))
        scale = spread + MIN_DIFFERENCE_SCALE**2 * np.eye(4)
        change = np.linalg.slogdet(scale)[1] - np.linalg.slogdet(before)[1]
        if abs(change) < LOG_VOLUME_TOLERANCE:
            break
    return mean, np.einsum("sna,snb->nab", away, away) / _SAMPLES


def links(solved: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours along x and along y among the solved positions (Ry, Rx), as two arrays (l,) of
    their indices in scan order.
    """
    index = np.cumsum(solved.ravel()).reshape(solved.shape) - 1
    along_x, along_y = solved[:, 1:] & solved[:, :-1], solved[1:] & solved[:-1]
    first = np.concatenate([index[:, :-1][along_x], index[:-1][along_y]])
    return first, np.concatenate([index[:, 1:][along_x], index[1:][along_y]])


def _block_diagonal(values: Array) -> sparse.csr_array:
    """Block diagonal matrix of blocks (n, 4, 4)."""
    n = len(values)
    return sparse.csr_array(
        sparse.bsr_array((values, np.arange(n), np.arange(n + 1)), shape=(4 * n, 4 * n))
    )


def _paired_draws(generator: np.random.Generator, n: int) -> Array:
    """Normal draws (_SAMPLES, n, 4) in pairs of opposite sign."""
    half = generator.standard_normal((_SAMPLES // 2, n, 4))
    return np.concatenate([half, -half])
