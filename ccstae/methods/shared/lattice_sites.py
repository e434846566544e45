"""Where disks may lie, by geometry alone: the nodes of a nominal lattice on a detector, the
lattices that are tried in its place, and the gaps between its disks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.methods.shared import beams

# Largest change of the lattice parameter that is searched, as a scale of the whole scan; the strain
# of single patterns rides on top, within the reach of a disk.
MAX_SCALE_CHANGE = 0.06
CELL = 12  # places along either side of a cell at which gaps are looked for
# The outermost disk that is used lies at least at this share of the detector's reach, so that a
# rough lattice predicts any disk to its radius.
MIN_REACH_SHARE = 0.25
MAX_PATTERN_BYTES = 64 * 2**20  # that the table of all candidates' sites takes for one pattern
BYTES_PER_SITE = 24  # of a candidate: four float32 and one index


def nodes(calibration: Calibration, shape: tuple[int, ...]) -> Tensor:
    """Integer (h, k), (S, 2), of all nodes but (0, 0) that lie on a (..., Qy, Qx) detector in some
    orientation.
    """
    G = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    _, farthest = border_distances_px(calibration.centre_px, shape)
    reach = math.hypot(*farthest) - disk_radius_px(calibration)
    return torch.from_numpy(geometry.lattice_nodes(G, reach)[1:])


def border_distances_px(
    centre_px: tuple[float, float], shape: tuple[int, ...]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far the borders of the detector are from the nominal direct beam.

    Args:
        centre_px: nominal direct beam (x, y) in pixels.
        shape: of the detector, (..., Qy, Qx).

    Returns:
        Distances (along x, along y) to the nearest and to the farthest border, in pixels. Both are
        half the side for a beam at n // 2.
    """
    height, width = shape[-2:]
    x, y = abs(centre_px[0] - width // 2), abs(centre_px[1] - height // 2)
    return (width / 2 - x, height / 2 - y), (width / 2 + x, height / 2 + y)


def rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """Index (S,) of the ring that each node of `hk` (S, 2) lies on: nodes of one length, shortest
    first.
    """
    length = np.linalg.norm(hk.numpy() @ calibration.lattice_inv_A.T, axis=-1)
    return torch.from_numpy(np.unique(np.round(length / length.min(), 3), return_inverse=True)[1])


def one_hot_rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """The table (1 + S, R) of which ring each node of `hk` (S, 2) lies on; the direct beam is a
    ring of its own before the others.
    """
    ring = rings(calibration, hk.cpu())
    with_beam = torch.cat([torch.zeros_like(ring[:1]), ring + 1])
    return torch.nn.functional.one_hot(with_beam).float().to(hk.device)


def within_memory(hk: Tensor, nominal: Tensor, symmetry: int, radius: float) -> Tensor:
    """The sites of `hk` (S, 2), on inner rings, whose candidates fit into `MAX_PATTERN_BYTES`."""
    length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
    reach = float(length.max())
    for limit in length.unique().flip(0).tolist():
        inner = hk[length <= limit]
        turns, scales = _grid(symmetry, radius, limit)
        size = BYTES_PER_SITE * turns * scales * len(inner)
        if size <= MAX_PATTERN_BYTES:
            if limit < MIN_REACH_SHARE * reach or _on_one_line(inner) > _on_one_line(hk):
                break
            return inner
    raise InputError(
        f"disks of radius {radius:.3g} px are too small against a lattice that reaches "
        f"{reach:.4g} px over the detector: the table of their sites takes {size / 2**20:.0f} MiB "
        f"for a pattern; expected at most {MAX_PATTERN_BYTES / 2**20:.0f} MiB: bin or crop the "
        f"patterns, or check the calibration"
    )


def _on_one_line(hk: Tensor) -> bool:
    """Whether all nodes (S, 2) are multiples of one."""
    return bool((hk[:, 0] * hk[0, 1] == hk[:, 1] * hk[0, 0]).all())


def _grid(symmetry: int, radius: float, reach: float) -> tuple[int, int]:
    """How many turns and how many scales the candidates have."""
    step = radius / 4 / reach
    turns = max(1, round(2 * math.pi / symmetry / step))
    scales = 2 * max(1, math.ceil(MAX_SCALE_CHANGE / step)) + 1
    return turns, scales


def one_hot_lines(hk: Tensor) -> Tensor:
    """The table (S, L) of which line through the origin each node (S, 2) lies on."""
    first = hk // torch.gcd(hk[:, 0], hk[:, 1])[:, None]
    sign = torch.where(first[:, 0] != 0, first[:, 0], first[:, 1]).sign()
    _, index = torch.unique(first * sign[:, None], dim=0, return_inverse=True)
    return torch.nn.functional.one_hot(index).float()


def nearest_nodes(nominal: Tensor, hk: Tensor, step: float, turns: int) -> tuple[Tensor, Tensor]:
    """Distances (S, T) in pixels from each site of `hk` (S, 2), turned by so many steps, to the
    nearest node of its own ring, and to the nearest of another.
    """
    turn = torch.from_numpy(geometry.rotation_matrix(np.arange(turns) * step)).float()
    at = torch.einsum("tij,jk,sk->sti", turn, nominal, hk.float())
    index = (at @ torch.linalg.inv(nominal).T).round()
    length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)[:, None]
    own, other = torch.full((2, *at.shape[:2]), torch.inf)
    for h in (-1, 0, 1):
        for k in (-1, 0, 1):
            node = (index + torch.tensor([h, k])) @ nominal.T
            away = torch.linalg.vector_norm(at - node, dim=-1)
            same = (torch.linalg.vector_norm(node, dim=-1) - length).abs() < 1e-3 * length
            own = torch.where(same, torch.minimum(own, away), own)
            other = torch.where(same, other, torch.minimum(other, away))
    return own, other


def gaps(
    nominal: Tensor, radius: float, reach: float, soft_px: float
) -> tuple[float, Tensor, Tensor]:
    """Places between disks for boxes that overlap neither these nor one another.

    Args:
        nominal: lattice (2, 2) in pixels.
        radius: of a disk, pixels.
        reach: how far from the beam the places may be, pixels.
        soft_px: how far from a disk the boxes stay; it may be less than this where disks leave no
            room even for a pixel.

    Returns:
        The radius of a disk of the area of the boxes: `radius`, or less where disks leave no room
        for such boxes. The places (P, 2) in units of the lattice vectors. The table (P, Q) of which
        of them lie at one distance from the beam.
    """
    index = torch.arange(CELL).float() / CELL
    cell = torch.cartesian_prod(index, index)
    depth = _distance(nominal, cell, torch.zeros(2))
    room = (float(depth.max()) - radius - soft_px) / math.sqrt(2) - 0.5
    half = max(0, min(beams.half_box(radius), math.floor(room)))
    clear = min(radius + math.sqrt(2) * (half + 0.5) + soft_px, 0.99 * float(depth.max()))
    left = torch.where(depth >= clear, depth, 0)
    taken: list[Tensor] = []
    while left.any():
        taken.append(cell[left.argmax()])
        left = torch.where(_distance(nominal, cell, taken[-1]) > 2 * half + 1, left, 0)
    most = math.ceil(reach / float(torch.linalg.svdvals(nominal).min())) + 1
    index = torch.arange(-most, most + 1).float()
    places = (torch.cartesian_prod(index, index)[:, None] + torch.stack(taken)).reshape(-1, 2)
    length = torch.linalg.vector_norm(places @ nominal.T, dim=-1)
    inside = length <= reach
    _, ring = torch.unique((length[inside] / radius * 100).round(), return_inverse=True)
    table = torch.nn.functional.one_hot(ring).float()
    full = half == beams.half_box(radius)
    return radius if full else (2 * half + 1) / math.sqrt(math.pi), places[inside], table


def room(nominal: Tensor) -> tuple[float, float]:
    """How far the nodes of a lattice (2, 2) are apart, and how far the middle of its widest gap is
    from them, in the unit of the lattice.
    """
    index = torch.arange(CELL).to(nominal) / CELL
    depth = _distance(nominal, torch.cartesian_prod(index, index), torch.zeros(2).to(nominal))
    around = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)).to(nominal)
    length = torch.linalg.vector_norm(around @ nominal.T, dim=-1)
    return float(length[length > 0].min()), float(depth.max())


def _distance(nominal: Tensor, places: Tensor, other: Tensor) -> Tensor:
    """From places (n, 2) of the cell to the nearest where the lattice (2, 2) puts `other` (2,), in
    pixels; both are in units of its vectors.
    """
    around = torch.cartesian_prod(torch.arange(-2, 2), torch.arange(-2, 2)).to(nominal)
    apart = (places - other)[:, None] + around
    return torch.linalg.vector_norm(apart @ nominal.T, dim=-1).amin(1)


def candidates(nominal: Tensor, symmetry: int, radius: float, reach: float) -> tuple[Tensor, int]:
    """Lattices (K, 2, 2) and how many scales each turn has. The outermost site, at `reach` pixels,
    moves by a quarter of a radius from one to the next.
    """
    turns, scales = _grid(symmetry, radius, reach)
    phi = (torch.arange(turns) - turns // 2) * (2 * math.pi / symmetry / turns)
    scale = 1 / (1 + torch.linspace(-MAX_SCALE_CHANGE, MAX_SCALE_CHANGE, scales))
    turn = torch.from_numpy(geometry.rotation_matrix(phi.numpy())).float()
    return (turn[:, None] * scale[None, :, None, None] @ nominal).reshape(-1, 2, 2), scales
