"""What the dictionary learns from the counts: background, intensities and entries, and the shape of the disks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ccstae.model import spline, transformer
from ccstae.model.dictionary import Dictionary, improve
from ccstae.model.refine import State

LARGEST_ENTRIES = 4
_RIM_PX = 3.0  # what lies this far outside a disk is background
_CLUSTER_SPREAD = 0.1  # relative spread within an entry: what strain, place and neighbours do to the intensities
_SMALLEST_ENTRY = 0.02  # share of the patterns
_LEAST_AREA = 1e-3  # deviation of log det M within an entry, at least
_LEAST_SPREAD = 0.02  # relative; what strain alone does to the intensities


def diffuse(counts: Tensor, position: Tensor, radius_px: float, centre: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Sums over patterns, (rings,), of counts and of pixels that lie outside every disk, by whole-pixel distance from the centre."""
    n, height, width = counts.shape
    offsets = transformer.square(2 * math.ceil(radius_px + _RIM_PX) + 1, counts.device)
    patch = transformer.patches(position, offsets, (height, width))
    near = (offsets - patch.shift(position)[:, :, None]).norm(dim=-1) < radius_px + _RIM_PX
    keep = torch.ones(n, height * width, device=counts.device)
    # Several patches may share a clamped index; any that is near wins.
    keep.scatter_reduce_(1, patch.index.reshape(n, -1), 1.0 - (near & (patch.inside > 0)).reshape(n, -1).to(keep.dtype), "amin")
    ring = distance(height, width, centre, counts.device).reshape(-1).long()
    rings = int(ring.max()) + 1
    total = torch.zeros(rings, device=counts.device).index_add_(0, ring, (keep * counts.reshape(n, -1)).sum(0))
    area = torch.zeros(rings, device=counts.device).index_add_(0, ring, keep.sum(0))
    return total, area


def distance(height: int, width: int, centre: tuple[float, float], device: torch.device) -> Tensor:
    """Distance of each pixel from the centre (x, y), (Qy, Qx)."""
    y = torch.arange(height, device=device) - float(centre[1])
    x = torch.arange(width, device=device) - float(centre[0])
    return torch.hypot(y[:, None], x[None, :])


def background(counts: Tensor, position: Tensor, radius_px: float, centre: tuple[float, float], probe: Tensor, cusp: bool = True) -> Tensor:
    """Diffuse counts of a mean pattern, (Qy, Qx), fixed to the detector: the radial profile of what lies between the disks.

    A ring with few counts borrows from its neighbours: the window widens until it holds 100 counts or 9 rings. Under the direct
    beam, which is never bare, the profile goes on as `under_direct_beam` finds it.
    """
    n, shape = len(counts), (counts.shape[1], counts.shape[2])
    total, area = diffuse(counts, position, radius_px, centre)
    rings = len(total)
    value = total.new_zeros(rings)
    for ring in range(rings):
        for half in range(1, 10):
            low, high = max(0, ring - half), ring + half + 1
            held, pixels = total[low:high].sum(), area[low:high].sum()
            if held >= 100 or half == 9:
                break
        # Half a count where none fell: the rate is small, not zero.
        value[ring] = (held + 0.5) / pixels.clamp_min(1.0) if pixels > 0 else torch.nan
    bare = math.ceil(radius_px + _RIM_PX)
    known = value.isfinite().nonzero()[:, 0]
    value = torch.nan_to_num(value, nan=float(value[known[-1]]) if len(known) else 0.5 / n)
    r = distance(*shape, centre, total.device)
    # Ring r gathers distances r to r + 1.
    index = (r - 0.5).floor().long()
    a, b = value[index.clamp(0, rings - 1)], value[(index + 1).clamp(0, rings - 1)]
    outside = torch.exp(torch.lerp(a.log(), b.log(), (r - 0.5 - index).clamp(0, 1)))
    inside = under_direct_beam(counts.sum(0), total, area, n, r, bare, probe) if cusp else outside
    return torch.where(r < bare + 1, inside, outside)


def under_direct_beam(summed: Tensor, total: Tensor, area: Tensor, n: int, r: Tensor, bare: int, probe: Tensor) -> Tensor:
    """Diffuse counts (Qy, Qx) near the centre: b / (1 + (r / r0)^2)^p beside A times the vacuum probe, by Poisson likelihood.

    The rings under the direct beam hold both; rings out to three times as far, bare of disks, hold the diffuse part alone.
    `summed` (Qy, Qx) is the sum of n patterns, `total` and `area` are those of `diffuse`.
    """
    reach = 3 * bare
    distances = r.double().cpu().numpy()
    ring = distances.astype(int)
    near, far = ring < bare, (ring >= bare) & (ring < reach)
    order = [np.bincount(ring[near], v[near], bare) for v in (summed.double().cpu().numpy(), probe.double().cpu().numpy())]
    inner_counts, inner_probe = order
    outer_counts, outer_area = (v.double().cpu().numpy()[bare:reach] for v in (total, area))
    pixels = np.bincount(ring[far], minlength=reach)[bare:reach]
    electrons = inner_counts.sum()

    def profile(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(z[0]) / (1 + (distances / np.exp(z[1])) ** 2) ** np.exp(z[2]))

    def cost(z: NDArray[np.float64]) -> float:
        B = profile(z)
        inner = n * np.bincount(ring[near], B[near], bare) + electrons / (1 + np.exp(-z[3])) * inner_probe + 1e-12 * electrons
        outer = outer_area * np.bincount(ring[far], B[far], reach)[bare:reach] / np.maximum(pixels, 1) + 1e-12 * electrons
        return float((inner - inner_counts * np.log(inner)).sum() + (outer - outer_counts * np.log(outer)).sum()) / max(electrons, 1.0)

    level = np.log((outer_counts.sum() + 0.5) / max(outer_area.sum(), 1.0))
    starts = [np.array([level + lift, np.log(width), 0.0, 2.0]) for lift, width in ((0.5, 30.0), (4.0, 2.0))]
    found = min(
        (minimize(cost, z, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-12}) for z in starts),
        key=lambda f: f.fun,
    )
    return torch.from_numpy(profile(found.x)).to(r)


def entries(intensity: Tensor, variance: Tensor, most: int = LARGEST_ENTRIES) -> tuple[Tensor, Tensor]:
    """Sparse code over disk intensities (n, K) with variances (n, K): entries (E, K) and log odds (n, E) of each for each pattern.

    A mixture of E normal clusters of relative intensities, whose variance is that of the counts plus a relative spread, is fitted by
    expectation maximisation for E = 1, 2, ...; the number with the lowest Bayesian information criterion is taken
    (G. Schwarz, Ann. Stat. 6, 461 (1978)).
    """
    total = intensity.sum(1, keepdim=True).clamp_min(1e-9)
    x, v = (intensity / total).double(), (variance / total**2).double()
    n, K = x.shape
    best, score = None, float("inf")
    order = torch.argsort(_main_axis(x, v))
    for E in range(1, most + 1):
        if E > 1 and n < 20 * E:
            break
        share = torch.zeros(n, E, dtype=x.dtype, device=x.device)
        share[order, torch.arange(n, device=x.device) * E // n] = 1.0
        for _ in range(60):
            weight = share.sum(0).clamp_min(1e-9)
            centre = x.mean(0).expand(E, K)
            for _ in range(2):
                precision = 1 / (v[:, None] + (_CLUSTER_SPREAD * centre.clamp_min(0.2 * centre.mean())) ** 2)  # (n, E, K)
                centre = (share[..., None] * precision * x[:, None]).sum(0) / (share[..., None] * precision).sum(0).clamp_min(1e-30)
            z2 = (x[:, None] - centre) ** 2 * precision
            # Bounded: one odd disk must not decide.
            logp = -0.5 * (9 * torch.log1p(z2 / 9)).sum(2) + 0.5 * precision.log().sum(2) + (weight / n).log()
            new = logp.softmax(1)
            if (new - share).abs().max() < 1e-3:
                break
            share = new
        if weight.min() < _SMALLEST_ENTRY * n:
            continue
        bic = -2 * float(logp.logsumexp(1).sum()) + (E * K + E - 1) * float(torch.tensor(float(n)).log())
        if bic < score:
            score, best = bic, (centre.to(intensity.dtype), logp)
    assert best is not None
    return best


def _main_axis(x: Tensor, v: Tensor) -> Tensor:
    """Projection (n,) of whitened intensities on their first principal axis: where clusters lie apart, if any do."""
    white = (x - x.mean(0)) / (v.mean(0) + 1e-12).sqrt()
    return white @ torch.linalg.eigh(white.T @ white)[1][:, -1]


def log_area(M: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """log det M, the size of the reciprocal cell against the nominal one, and its variance, (n,), from M (n, 2, 2) and its covariance.

    d log det M = tr(M^-1 dM).
    """
    M = M.double()
    slope = torch.linalg.inv(M).transpose(1, 2).reshape(-1, 4)
    return torch.linalg.det(M).clamp_min(1e-6).log(), torch.einsum("na,nab,nb->n", slope, covariance, slope)


def area_odds(area: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """Log odds (n, E) of entries whose patterns have log areas of mean and deviation `area` (E, 2), for `found` of `log_area`."""
    variance = area[:, 1] ** 2 + found[1][:, None]
    return -0.5 * (9 * torch.log1p((found[0][:, None] - area[:, 0]) ** 2 / variance / 9) + variance.log())


def likeliest(odds: Tensor, area: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """The entry (n,) that intensities, by their log odds (n, E), and the size of the cell speak for together."""
    return (odds + area_odds(area, found)).argmax(1)


def areas(odds: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """Mean and deviation (E, 2) of the log area of each entry's patterns, by expectation maximisation from the intensities' odds (n, E).

    Materials differ in their lattice as well as in their intensities. Where they do not, the deviations are alike and nothing is added.
    """
    x, v = found
    area = torch.stack([x.mean(), x.std().clamp_min(_LEAST_AREA)]).expand(odds.shape[1], 2)
    for _ in range(30):
        share = (odds + area_odds(area, found)).softmax(1)
        weight = share / (area[:, 1] ** 2 + v[:, None])
        mean = (weight * x[:, None]).sum(0) / weight.sum(0)
        beyond = (share * ((x[:, None] - mean) ** 2 - v[:, None])).sum(0) / share.sum(0)
        area = torch.stack([mean, beyond.clamp_min(_LEAST_AREA**2).sqrt()], 1)
    return area


def expected(dictionary: Dictionary, state: State, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities (n, E, K - 1) that each entry expects at the pattern's counts, and the entries' log odds (n, E) from the intensities.

    `variance` (n, K) is that of the state's intensities.
    """
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    shares = dictionary.intensity[:, 1:] / dictionary.intensity[:, 1:].sum(1, keepdim=True)
    value = total[:, None] * shares
    spread = variance[:, None, 1:].float() + (dictionary.spread[1:] * value) ** 2
    return value, -0.5 * ((state.intensity[:, None, 1:] - value) ** 2 / spread + spread.log()).sum(-1)


def code(dictionary: Dictionary, state: State, variance: Tensor, covariance: Tensor, most: int) -> tuple[Dictionary, State]:
    """Learn entries and the spread about them; returns the dictionary, and the states with what their entries expect as prior."""
    centre, odds = entries(state.intensity[:, 1:], variance[:, 1:], most)
    found = log_area(state.M, covariance)
    area = areas(odds, found)
    label = likeliest(odds, area, found)
    # An entry that its own patterns leave for another is none.
    kept = (torch.bincount(label, minlength=len(centre)) > 0).nonzero()[:, 0]
    centre, area, label = centre[kept], area[kept], torch.searchsorted(kept, label)
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    prior = torch.cat([state.intensity[:, :1], total * centre[label]], 1)
    relative = (state.intensity / prior.clamp_min(1e-6) - 1) ** 2 - variance / prior.clamp_min(1e-6) ** 2
    spread = relative.median(0).values.clamp_min(_LEAST_SPREAD**2).sqrt().clamp_max(0.5) * 1.5
    spread[0] = 0.5
    mean = torch.stack([(state.intensity[label == e]).mean(0) for e in range(len(centre))])
    return replace(dictionary, intensity=mean, spread=spread, area=area), replace(state, prior=prior)


def shape(dictionary: Dictionary, counts: Tensor, state: State, rounds: int) -> Dictionary:
    """Learn the disks' shape from aligned patterns."""
    for _ in range(rounds):
        position = transformer.positions(state.M, state.centre, dictionary.g)
        window = transformer.square(dictionary.pixels, counts.device)
        patch = transformer.patches(position, window, (counts.shape[-2], counts.shape[-1]))
        seen = patch.inside.amin(-1) > 0  # a disk cut by the border would teach its border
        seen[:, 0] = False
        shift, intensity = patch.shift(position)[seen], state.intensity[seen]
        unit = spline.render(dictionary.disk, shift, dictionary.pixels)
        diffuse_counts = (state.level[:, None, None] * patch.cut(dictionary.background))[seen].reshape(unit.shape)
        model = intensity[:, None, None] * unit + diffuse_counts + dictionary.floor
        dictionary = improve(dictionary, patch.cut(counts)[seen].reshape(unit.shape), model, intensity, shift)
    return dictionary


def model_error(dictionary: Dictionary, counts: Tensor, state: State) -> float:
    """What the aligned patterns leave beyond Poisson's variance: root mean square, over the brightest pixel of the disk.

    Zero where the counts' own noise hides it. At high dose it is strain that changes within the probe, neighbours' tails and
    whatever else the dictionary has no word for; a pixel then weighs by both variances.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)[:, 1:]
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    unit = dictionary.tables[1](patch.shift(position).reshape(-1, 2))[0].reshape(patch.index.shape)
    disk = state.intensity[:, 1:, None] * unit
    model = disk + state.level[:, None, None] * patch.cut(dictionary.background) + dictionary.floor
    beyond = ((patch.cut(counts) - model) ** 2 - model) * (patch.inside > 0)
    brightest = (disk.amax(2, keepdim=True) * patch.inside).double()
    # Summed before they are divided, so that faint disks do not decide.
    return math.sqrt(max(float(beyond.double().sum() / (brightest**2).sum()), 0.0))
