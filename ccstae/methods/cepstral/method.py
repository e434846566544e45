"""Exit-wave power cepstrum: the lattice in real space, from the Fourier transform of a pattern's
logarithm.

    C(r) = |sum_q w(q) log(n(q) + n0) exp(-2 pi i q r)|

has peaks at the lattice vectors r of the specimen (Padgett et al., Ultramicroscopy 214, 112994
(2020)). The logarithm takes weak disks for as much as strong ones, so intensities that tilt and
thickness change matter little; w is a Hann window against the pattern's border. As in the authors'
code the transform is evaluated where it is wanted, off any grid: about each predicted lattice
vector as two matrix products, over the width of a peak first and then finely round its maximum.

The peaks lie on a slope of C, which falls from r = 0 with the size of the probe, and are pulled by
it, alike everywhere but for what strain changes. Taking off what is smooth in the logarithm
(`disks_alone`, not in the published code) makes the slope small; without it a diffuse background
hides the peaks. Where most pixels hold no electron the logarithm has nothing to level, and the
peaks drown in noise.

A pattern without an answer (NaN) is one whose evidence for any lattice stays below 20 to 1
(`site_evidence.MIN_EVIDENCE`), or whose peaks do not determine a lattice within 12 % of where it
was first seen.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ccstae import geometry
from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.cepstral.settings import CepstralSettings
from ccstae.methods.shared import lattice_fit, lattice_sites, refined_map, sites, windows
from ccstae.methods.shared.between_disks import EDGE_PX, disk_mask, radial_mean
from ccstae.methods.shared.filled import filler
from ccstae.methods.shared.peaks import maximum

# A peak is as wide as the pattern is narrow, 1 / px. The first look covers one width to either
# side, in steps of a quarter.
COARSE = 4


def map_strain(counts: Counts, settings: CepstralSettings, device: str) -> Answer:
    """F from the peaks of the power cepstrum; NaN for patterns without a lattice (module
    docstring).
    """
    finder = sites.SiteFinder.learn(counts, device)
    pixel = counts.calibration.pixel_size_inv_A
    nominal = geometry.reciprocal(
        counts.calibration.lattice_inv_A
    )  # lattice vectors in Angstrom; the dual's dual
    shortest = float(np.linalg.norm(geometry.lattice_nodes(nominal, np.inf)[1] @ nominal.T))
    half = geometry.lattice_nodes(nominal, settings.longest * shortest)[1:]
    half = half[(half[:, 0] > 0) | ((half[:, 0] == 0) & (half[:, 1] > 0))]  # C(-r) = C(r)
    nodes = torch.from_numpy(half).to(device)
    disks = lattice_sites.nodes(counts.calibration, counts.detector).to(device)
    disks = torch.cat([torch.zeros_like(disks[:1]), disks])

    filled = filler(counts.good, device)

    def lattices(patterns: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        rough = finder.locate(patterns, rows)
        begin = torch.linalg.inv(rough.G.double()).mT  # lattice vectors in 1 / px
        logarithm = (filled(patterns).clamp_min(0) + settings.offset_electrons).log()
        if settings.background == "radial":
            logarithm = disks_alone(logarithm, rough, disks, finder.tables.radius + EDGE_PX)
        found = refine(windowed(logarithm), begin, nodes, settings.upsample)
        away = (found - begin).norm(dim=(-2, -1)) / begin.norm(dim=(-2, -1))
        lost = ~rough.has_lattice | ~(away < refined_map.MAX_RELATIVE_DRIFT)
        return torch.where(lost[:, None, None], torch.nan, found) / pixel, torch.where(
            lost[:, None], torch.nan, rough.centre.double()
        )

    scan = counts.scan
    A, centre = (
        values.cpu().numpy() for values in windows.over_scan(lattices, counts.patterns, device)
    )
    F = geometry.deformation_from_real(A, nominal)
    return Answer(F=F.reshape(*scan, 2, 2), centre_px=centre.reshape(*scan, 2))


def disks_alone(logarithm: Tensor, rough: sites.Located, hk: Tensor, radius: float) -> Tensor:
    """The logarithm (B, Qy, Qx) less its mean between the disks `hk` (S, 2) at each distance from
    the direct beam, and without that beam.

    What is smooth in the pattern makes the slope on which the peaks lie, and a beam that outshines
    the disks most of it.
    """
    at = lattice_fit.node_positions(rough.centre, rough.G, hk)
    beam = disk_mask(at[:, :1], radius, *logarithm.shape[-2:])
    return (logarithm - radial_mean(logarithm, rough.centre, at, radius)).masked_fill(beam, 0)


def windowed(logarithm: Tensor) -> Tensor:
    """A Hann window times the logarithm (B, Qy, Qx), its mean under the window taken off: what lies
    at r = 0 then leaks nowhere.
    """
    height, width = logarithm.shape[-2:]
    window = torch.hann_window(height).to(logarithm)[:, None] * torch.hann_window(width).to(
        logarithm
    )
    mean = (window * logarithm).sum((-1, -2), keepdim=True) / window.sum()
    return window * (logarithm - mean)


def refine(levels: Tensor, begin: Tensor, nodes: Tensor, upsample: int) -> Tensor:
    """Lattice vectors (B, 2, 2), columns in 1 / px, from the peaks of C at `nodes` (S, 2),
    predicted by those of `begin` (B, 2, 2).
    """
    step = 1 / min(levels.shape[-2:])
    at = torch.einsum("bij,sj->bsi", begin, nodes.to(begin.dtype)).to(levels.dtype)
    steps = torch.arange(-COARSE, COARSE + 1, device=levels.device) / COARSE
    shift, _ = maximum(spectrum(levels, at, steps * step))
    at = at + shift * step / COARSE
    fine = math.ceil(upsample / COARSE)
    steps = torch.arange(-fine, fine + 1, device=levels.device) / upsample
    shift, height = maximum(spectrum(levels, at, steps * step))
    at = at + shift * step / upsample
    # Both ends of each vector: the fit then passes through r = 0. Noise moves a peak by the inverse
    # of its height.
    return lattice_fit.fit(
        torch.cat([at, -at], 1), torch.cat([height, height], 1) ** 2, torch.cat([nodes, -nodes])
    ).G


def spectrum(levels: Tensor, at: Tensor, offsets: Tensor) -> Tensor:
    """|sum_q L(q) exp(-2 pi i q r)|, (B, S, n, n), y first, at r = `at` (B, S, 2) plus `offsets`
    (n,) along y and x, in 1 / px.
    """
    B, height, width = levels.shape
    wave_y, wave_x = (
        torch.exp(
            -2j
            * torch.pi
            * (at[..., axis, None] + offsets)[..., None]
            * (torch.arange(n, device=levels.device) - n // 2)
        )
        for axis, n in ((1, height), (0, width))
    )  # (B, S, n, Qy), (B, S, n, Qx)
    S, n = wave_x.shape[1:3]
    along_x = levels.to(wave_x.dtype) @ wave_x.reshape(B, S * n, width).mT  # (B, Qy, S n)
    return (wave_y @ along_x.reshape(B, height, S, n).permute(0, 2, 1, 3)).abs()
