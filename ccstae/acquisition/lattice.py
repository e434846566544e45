"""The lattice of a pattern without a nominal one: bright places, the differences between them, and
the pair of differences that explains them best.

A place is explained where it lies within a tolerance of a node. A lattice of many nodes explains
much by chance. So the score is a log likelihood ratio: of n places with weights w that sum to n,
those on a node count w log((1 - e) A / (pi t^2)), A the area of a cell and t the tolerance, the
others w log(e), and a node within reach that holds nothing costs as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccstae import geometry

Array = NDArray[np.float64]

MAX_SPOTS = 60
MAX_VECTORS = 28  # differences of which pairs are tried
MIN_DEVIATIONS = 6.0  # of the noise of a pattern, by which a spot exceeds it
FAINT_DEVIATIONS, MAX_FAINT_SPOTS = 3.0, 300  # once the lattice is known
# Of the brightest spot. Fainter ones may be tails, streaks and reflections of the optics.
MIN_SHARE_OF_BRIGHTEST = 1e-4
STRAY = 0.1  # e above: share of places that belong to nothing
TOLERANCE_RADII, MIN_TOLERANCE_PX = 0.3, 0.8
EMPTY_NODE_COST = 0.7
MAX_DEVIATIONS = 4.0  # of a spot that belongs to a node, of the scatter of all that do
# Spots on a lattice beside the direct beam: three are not enough for two vectors and a check.
MIN_SPOTS = 5
MIN_EXPLAINED = 0.5  # of the weights
MIN_SCORE_PER_SPOT = 0.7
# Two vectors of a lattice that a detector with an ellipse shows.
SAME_LENGTH_TOLERANCE = 0.06
SAME_ANGLE_TOLERANCE_DEG = 3.5


@dataclass(frozen=True)
class Spots:
    """Bright places of a pattern."""

    places: Array  # (n, 2), x and y in pixels, the brightest first
    weight: Array  # (n,), brightness above what is around


@dataclass(frozen=True)
class Found:
    """A lattice that was found."""

    G: Array  # (2, 2), the two shortest vectors as columns, in pixels
    origin: Array  # (2,), the node nearest to the direct beam, x and y in pixels
    nodes: NDArray[np.int64]  # (n, 2), indices of the spots that lie on it
    places: Array  # (n, 2), of these spots
    explained: float  # share of the spots' weights
    rms_px: float  # of these spots about their nodes
    error_px: float  # standard error of a component of G

    @property
    def symmetry(self) -> int:
        """6, 4 or 2: of the lattice as an undistorted detector would show it."""
        return symmetry_of(self.G)


def of_image(image: Array, beam: Array, radius: float, good: NDArray[np.bool_]) -> Found | str:
    """The lattice of an image (Qy, Qx), or why there is none.

    Args:
        image: a mean pattern.
        beam: its direct beam, (x, y) in pixels, or a place near it.
        radius: of the disks, pixels.
        good: where a pixel tells something, (Qy, Qx).
    """
    found = find(spots(image, radius, good), beam, radius)
    if isinstance(found, str):
        return found
    # Faint disks, too, lie where the lattice says, and tell of it over all of the detector.
    faint = spots(image, radius, good, FAINT_DEVIATIONS, MAX_FAINT_SPOTS).places
    tolerance = max(TOLERANCE_RADII * radius, MIN_TOLERANCE_PX)
    G, origin = found.G, found.origin
    for _ in range(4):
        G, origin, on = _fit(G, origin, faint, tolerance)
    if on.sum() < len(found.nodes):
        return found
    return _result(G, origin, faint, on, found.explained)


def spots(
    image: Array,
    radius: float,
    good: NDArray[np.bool_],
    deviations: float = MIN_DEVIATIONS,
    most: int = MAX_SPOTS,
) -> Spots:
    """Disks of a radius that stand out of what is around them by so many deviations of the noise,
    in an image (Qy, Qx).
    """
    inside = _round(radius)
    around = _round(radius + 3.5) & ~_padded(_round(radius + 1.5), _round(radius + 3.5).shape[0])
    share = _mean(good.astype(float), inside)
    filled = np.where(good, image, 0.0)
    disk = _mean(filled, inside) / np.maximum(share, 0.3)
    ring = _mean(filled, around) / np.maximum(_mean(good.astype(float), around), 0.1)
    excess = np.where(share > 0.5, disk - ring, -np.inf)
    finite = excess[np.isfinite(excess)]
    middle = float(np.median(finite))
    noise = 1.4826 * float(np.median(np.abs(finite - middle)))
    highest = ndimage.maximum_filter(excess, footprint=_round(max(1.3 * radius, 1.5)))
    least = max(middle + deviations * noise, MIN_SHARE_OF_BRIGHTEST * float(finite.max()))
    rows, columns = np.nonzero((excess == highest) & (excess > least) & (excess > 0))
    height, width = image.shape
    edge = math.ceil(radius)
    whole = (rows >= edge) & (rows < height - edge) & (columns >= edge) & (columns < width - edge)
    rows, columns = rows[whole], columns[whole]
    order = np.argsort(-excess[rows, columns])[:most]
    rows, columns = rows[order], columns[order]
    places = [
        _centroid(filled, np.array([column, row], float), radius)
        for row, column in zip(rows, columns, strict=True)
    ]
    return Spots(np.array(places).reshape(-1, 2), excess[rows, columns])


def find(found: Spots, beam: Array, radius: float) -> Found | str:
    """The lattice that explains spots best, or why none does.

    Args:
        found: the spots.
        beam: one of them, or a place near one, (x, y), that is a node.
        radius: of the disks, pixels.
    """
    places = found.places
    if len(places) == 0:
        return "no place stands out of the mean pattern"
    if len(places) < MIN_SPOTS:
        return (
            f"{len(places)} places stand out of the mean pattern, and a lattice takes {MIN_SPOTS}: "
            f"looks like vacuum, or too few electrons"
        )
    origin = places[np.linalg.norm(places - beam, axis=1).argmin()]
    weight = np.sqrt(found.weight)
    weight = np.minimum(weight, 3 * np.median(weight))
    weight = weight * len(weight) / weight.sum()
    tolerance = max(TOLERANCE_RADII * radius, MIN_TOLERANCE_PX)
    vectors = _differences(places, weight, origin, tolerance, 2 * radius)
    best: tuple[float, Array] | None = None
    for first, second in combinations(vectors, 2):
        G = reduced(np.stack([first, second], 1))
        if abs(np.linalg.det(G)) < math.pi * (1.5 * radius) ** 2 or np.linalg.cond(G) > 8:
            continue
        score = _score(G, origin, places, weight, tolerance)
        if best is None or score > best[0]:
            best = score, G
    if best is None:
        return "the bright places of the mean pattern lie on one line"
    G, start = best[1], origin
    for _ in range(4):
        G, start, on = _fit(G, start, places, tolerance)
        if on.sum() < 4:
            return "the bright places of the mean pattern lie on no lattice"
    G = reduced(G)
    hk = np.rint((places - start) @ np.linalg.inv(G).T).astype(np.int64)
    away = np.linalg.norm(places - start - hk @ G.T, axis=1)
    explained = float(weight[away < 1.5 * tolerance].sum() / weight.sum())
    on = _near(away, tolerance)
    score = _score(G, start, places, weight, tolerance) / len(places)
    two = len(on.nonzero()[0]) > 3 and np.linalg.matrix_rank(hk[on]) == 2
    if on.sum() < MIN_SPOTS or not two or explained < MIN_EXPLAINED or score < MIN_SCORE_PER_SPOT:
        return (
            f"of {len(places)} bright places of the mean pattern the best lattice explains "
            f"{int(on.sum())} ({explained:.0%} of their brightness); expected one lattice: looks "
            f"like many crystals, or none"
        )
    return _result(
        G, start + G @ np.rint((beam - start) @ np.linalg.inv(G).T), places, on, explained
    )


def _result(
    G: Array, origin: Array, places: Array, on: NDArray[np.bool_], explained: float
) -> Found:
    hk = np.rint((places[on] - origin) @ np.linalg.inv(G).T).astype(np.int64)
    away = np.linalg.norm(places[on] - origin - hk @ G.T, axis=1)
    rms = float(np.sqrt(np.mean(away**2)))
    spread = np.linalg.inv(hk.T @ hk).diagonal().max() ** 0.5
    error = float(np.sqrt((away**2).sum() / 2 / max(1, len(away) - 3)) * spread)
    return Found(G, origin, hk, places[on], explained, rms, error)


def reduced(G: Array) -> Array:
    """The two shortest vectors of a lattice, as columns, the second turned from x towards y
    (Lagrange's algorithm).
    """
    a, b = G[:, 0], G[:, 1]
    while True:
        if a @ a > b @ b:
            a, b = b, a
        step = round(float(a @ b) / float(a @ a))
        if step == 0:
            break
        b = b - step * a
    return np.stack([a, b if a[0] * b[1] > a[1] * b[0] else -b], 1)


def symmetry_of(G: Array) -> int:
    """6, 4 or 2: order of rotation of a reduced lattice, distorted by a few per cent."""
    a, b = np.linalg.norm(G, axis=0)
    angle = math.degrees(math.acos(abs(float(G[:, 0] @ G[:, 1])) / (a * b)))
    if abs(a / b - 1) > SAME_LENGTH_TOLERANCE:
        return 2
    for degrees, order in ((60.0, 6), (90.0, 4)):
        if abs(angle - degrees) < SAME_ANGLE_TOLERANCE_DEG:
            return order
    return 2


def match(G: Array, nominal: Array, mirrored: bool = False) -> tuple[Array, float]:
    """How a nominal lattice lies in one that is seen: G = D N, N a basis of the nominal lattice.

    Args:
        G: seen, as columns, in pixels.
        nominal: as columns, in 1/Angstrom.
        mirrored: whether D is to mirror the lattice.

    Returns:
        D (2, 2), pixels times Angstrom, of least distortion, and that distortion: the ratio of the
        axes of the ellipse that a circle becomes, less 1.
    """
    turn = np.sign(np.linalg.det(G) * np.linalg.det(nominal)) * (-1 if mirrored else 1)
    best, D = math.inf, np.eye(2)
    for h1, k1, h2, k2 in product(range(-2, 3), repeat=4):
        if h1 * k2 - h2 * k1 != turn:
            continue
        candidate = G @ np.linalg.inv(nominal @ np.array([[h1, h2], [k1, k2]], float))
        long, short = np.linalg.svd(candidate, compute_uv=False)
        if long / short - 1 < best:
            best, D = float(long / short - 1), candidate
    return D, best


def _differences(
    places: Array, weight: Array, origin: Array, tolerance: float, shortest: float
) -> list[Array]:
    """The differences between spots that come most often, as the peaks of their autocorrelation:
    one of each pair of opposite ones.
    """
    top = np.argsort(-weight)[:40]
    first, second = np.triu_indices(len(top), 1)
    away = places[top][second] - places[top][first]
    much = weight[top][first] * weight[top][second]
    flip = (away[:, 1] < 0) | ((away[:, 1] == 0) & (away[:, 0] < 0))
    away[flip] *= -1
    long = np.linalg.norm(away, axis=1)
    keep = long > shortest
    away, much = away[keep], much[keep]
    peaks: list[tuple[float, Array]] = []
    left = np.ones(len(away), bool)
    for index in np.argsort(np.linalg.norm(away, axis=1)):
        if not left[index]:
            continue
        near = left & (np.linalg.norm(away - away[index], axis=1) < 2 * tolerance)
        left[near] = False
        mean = (away[near] * much[near, None]).sum(0) / much[near].sum()
        peaks.append((float(much[near].sum()), mean))
    peaks.sort(key=lambda peak: -peak[0])
    return [vector for _, vector in peaks[:MAX_VECTORS]]


def _score(G: Array, origin: Array, places: Array, weight: Array, tolerance: float) -> float:
    hk = np.rint((places - origin) @ np.linalg.inv(G).T)
    away = np.linalg.norm(places - origin - hk @ G.T, axis=1)
    on = away < tolerance * (1 + np.linalg.norm(hk, axis=1) / 6)
    cell = abs(float(np.linalg.det(G)))
    gain = math.log((1 - STRAY) * cell / (math.pi * tolerance**2) + STRAY)
    score = float((weight * np.where(on, gain, math.log(STRAY))).sum())
    if not on.any():
        return score
    # Nodes as near to the origin as two thirds of those that are seen.
    reach = float(np.quantile(np.linalg.norm(places[on] - origin, axis=1), 0.67))
    nodes = geometry.lattice_nodes(G, reach * 1.001)
    at = origin + nodes @ G.T
    low, high = places.min(0) - tolerance, places.max(0) + tolerance
    nodes = nodes[((at >= low) & (at <= high)).all(1)]
    seen = {tuple(node) for node in hk[on].astype(int).tolist()}
    empty = sum(tuple(node) not in seen for node in nodes.tolist())
    return score - EMPTY_NODE_COST * empty


def _fit(
    G: Array, origin: Array, places: Array, tolerance: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    hk = np.rint((places - origin) @ np.linalg.inv(G).T)
    away = np.linalg.norm(places - origin - hk @ G.T, axis=1)
    on = _near(away, tolerance)
    design = np.concatenate([np.ones((on.sum(), 1)), hk[on]], 1)
    if on.sum() < 4 or np.linalg.matrix_rank(design) < 3:
        return G, origin, on
    solution = np.linalg.lstsq(design, places[on], rcond=None)[0]
    return solution[1:].T, solution[0], on


def _near(away: Array, tolerance: float) -> NDArray[np.bool_]:
    """Spots that lie on their nodes: within a tolerance, and with the others' scatter. A saturated
    beam, say, has its centre elsewhere.
    """
    on = away < 1.5 * tolerance
    if not on.any():
        return on
    # The median of a Rayleigh distribution is 1.18 standard deviations.
    scatter = float(np.median(away[on])) / 1.18
    return on & (away < max(MAX_DEVIATIONS * scatter, 0.1))


def _centroid(image: Array, at: Array, radius: float) -> Array:
    """Centre of mass of what lies above a plane through what is around, in a round window that
    follows it.
    """
    half = math.ceil(radius + 4)
    start = at
    for _ in range(6):
        x, y = np.rint(at).astype(int)
        top, left = max(y - half, 0), max(x - half, 0)
        part = image[top : y + half + 1, left : x + half + 1]
        rows, columns = np.indices(part.shape)
        rows, columns = rows + top - at[1], columns + left - at[0]
        away = np.hypot(rows, columns)
        around = (away > radius + 1.5) & (away < radius + 4)
        design = np.stack([np.ones(around.sum()), columns[around], rows[around]], 1)
        level = np.linalg.lstsq(design, part[around], rcond=None)[0]
        above = np.clip(part - level[0] - level[1] * columns - level[2] * rows, 0, None)
        weight = above * np.clip(radius + 1.5 - away, 0, 1)
        mass = max(float(weight.sum()), 1e-300)
        at = at + np.array([(weight * columns).sum(), (weight * rows).sum()]) / mass
        if np.linalg.norm(at - start) > radius + 1:
            return start
    return at


def _round(radius: float) -> NDArray[np.bool_]:
    half = math.floor(radius)
    y, x = np.indices((2 * half + 1, 2 * half + 1)) - half
    return np.hypot(x, y) <= radius


def _padded(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    return np.pad(mask, (side - mask.shape[0]) // 2)


def _mean(image: Array, kernel: NDArray[np.bool_]) -> Array:
    weights = kernel / kernel.sum()
    return np.asarray(ndimage.correlate(image, weights, mode="nearest"))
