"""Maps of methods that refine rough lattices pattern by pattern."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccstae import geometry
from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.shared import windows
from ccstae.methods.shared.lattice_fit import LatticeFit
from ccstae.methods.shared.sites import Located, SiteFinder

# A fit that ends this far from the rough lattice, relative to it, has lost the disks.
MAX_RELATIVE_DRIFT = 0.12


def strain(
    counts: Counts, finder: SiteFinder, refine: Callable[[Tensor, Located], LatticeFit], device: str
) -> Answer:
    """Map a scan with a method that refines rough lattices.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx) and calibration.
        finder: gives the rough lattices.
        refine: takes patterns (B, Qy, Qx) and their rough lattices, and gives the lattices.
        device: "cpu" or "cuda".

    Returns:
        F against the nominal lattice, and the direct beams; NaN where `refine` gives NaN.
    """

    def lattices(patterns: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        lattice = refine(patterns, finder.locate(patterns, rows))
        return lattice.centre, lattice.G

    scan = counts.scan
    centre, G = windows.over_scan(lattices, counts.patterns, device)
    F = geometry.deformation_from_reciprocal(
        G.cpu().numpy() * counts.calibration.pixel_size_inv_A, counts.calibration.lattice_inv_A
    )
    beam = centre.cpu().numpy().reshape(*scan, 2)
    return Answer(F=F.reshape(*scan, 2, 2), centre_px=beam, found=finder.found)


def track(fitted: LatticeFit, rough: Located, lost: Tensor) -> tuple[LatticeFit, Tensor]:
    """Bring fits that have lost their disks back to the rough lattice.

    Args:
        fitted: lattices of B patterns.
        rough: where they began.
        lost: which were lost before, (B,).

    Returns:
        The lattices, and which are lost now: those that were before, those without a solution, and
        those 12 % from where they began.
    """
    drift = (fitted.G - rough.G).norm(dim=(-2, -1)) / rough.G.norm(dim=(-2, -1))
    lost = lost | ~(drift < MAX_RELATIVE_DRIFT)
    back = LatticeFit(
        torch.where(lost[:, None], rough.centre.double(), fitted.centre),
        torch.where(lost[:, None, None], rough.G.double(), fitted.G),
    )
    return back, lost
