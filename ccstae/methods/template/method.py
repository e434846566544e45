"""Template matching: cross-correlation with a probe template, peaks to a fraction of a pixel, and a
lattice through them.

The procedure of py4DSTEM (Savitzky et al., Microsc. Microanal. 27, 712 (2021)), batched: one FFT
and one inverse FFT a pattern, and small windows round the predicted sites from then on. The mean at
each distance from the beam, between the disks, is taken off first. Where disks leave no room for a
trench, there is none, and each is sought without the light of the others (`apart`).

A pattern without an answer (NaN) is one whose evidence for any lattice stays below 20 to 1
(`sites.MIN_EVIDENCE`), or whose peaks do not determine a lattice within 12 % of where it was first
seen.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.shared import lattice_fit, lattice_sites, peaks, windows
from ccstae.methods.shared.between_disks import (
    EDGE_PX,
    at_pixels,
    radial_profile,
    without_beam,
)
from ccstae.methods.shared.filled import filler
from ccstae.methods.shared.lattice_fit import LatticeFit
from ccstae.methods.shared.lattice_sites import nodes, one_hot_rings
from ccstae.methods.shared.refined_map import strain, track
from ccstae.methods.shared.sites import Located, SiteFinder
from ccstae.methods.template import kernels
from ccstae.methods.template.apart import Apart
from ccstae.methods.template.settings import TemplateSettings

# The interpolation of correlation maps passes 0.25 cycles a pixel (`peaks.TAPS`). The spectrum of a
# disk of radius R ends at 0.61 / R, so that smaller disks hold power beyond it.
MIN_SHARP_RADIUS_PX = 2.5
# From the centre of a disk to the edge of the next, in radii: less has no room for a trench of two
# radii with its soft edge, of which a thousandth is left there.
MIN_TRENCH_ROOM_RADII = 2.7
GAP_ROUNDS = 2  # of disks and the background between them, each without the other


class Matcher:
    """A template, made once, and the lattices it finds in patterns."""

    def __init__(
        self,
        probe: Tensor,
        hk: Tensor,
        ring: Tensor,
        radius: float,
        nominal: Tensor,
        settings: TemplateSettings,
    ) -> None:
        self.hk = torch.cat(
            [torch.zeros_like(hk[:1]), hk]
        )  # the direct beam is a node too; it carries the centre
        self.ring = ring  # (S, R)
        self.radius = radius
        self.settings = settings
        self.n = kernels.padded(max(probe.shape), settings.trench_radii * radius)
        wide = torch.nn.functional.pad(
            probe, (0, self.n - probe.shape[1], 0, self.n - probe.shape[0])
        )
        # Whitened, or under an interpolation that does not pass all, a beam a thousand times as
        # bright as a disk rings through the map.
        self.with_beam = settings.correlation_power == 1 and radius >= MIN_SHARP_RADIUS_PX
        spacing_px, gap_px = lattice_sites.room(nominal)
        self.gap_px = gap_px - radius
        has_room = spacing_px - radius >= MIN_TRENCH_ROOM_RADII * radius
        kernel = kernels.smooth(
            kernels.template(
                wide, radius, settings.kernel if has_room else "flat", settings.trench_radii
            ),
            settings.smoothing_px,
        )
        self.spectrum = torch.fft.rfft2(kernel)
        # Only correlation that is linear can tell what disks do to one another.
        linear = settings.correlation_power == 1 and settings.search == "predicted"
        self.apart = None
        if linear and not has_room:
            self.apart = Apart(wide, self.spectrum, radius)
        half = math.ceil(radius) + 3
        slope = (
            (kernel.roll(-1, 0) - kernel.roll(1, 0)) ** 2
            + (kernel.roll(-1, 1) - kernel.roll(1, 1)) ** 2
        ) / 8
        self.slope = slope.roll((half, half), (0, 1))[: 2 * half + 1, : 2 * half + 1]
        disk = kernels.template(wide, radius, "flat", 1)
        self.least = float(
            (disk * slope).sum() / (disk * kernel).sum()
        )  # v / h of a disk without background

    def _shown(self, patterns: Tensor, centre: Tensor, profile: Tensor) -> Tensor:
        """Patterns (B, Qy, Qx) without the background of `profile` (B, n) about beams at `centre`
        (B, 2), and without these where they would ring.
        """
        # A trench takes off a flat background alone. On a slope, such as that of a halo, it moves
        # disks.
        shown = patterns - at_pixels(patterns, centre, profile)
        if not self.with_beam:
            shown = without_beam(shown, centre, self.radius + EDGE_PX)
        return shown

    def _map(self, patterns: Tensor, centre: Tensor, profile: Tensor) -> Tensor:
        """Correlation maps of patterns, both (B, Qy, Qx), as `_shown`."""
        return kernels.correlate(
            kernels.padded_spectrum(self._shown(patterns, centre, profile), self.n),
            self.spectrum,
            self.settings.correlation_power,
            patterns.shape,
        )

    def refine(self, patterns: Tensor, rough: Located) -> LatticeFit:
        """Lattices of patterns (B, Qy, Qx), from rough ones."""
        settings = self.settings
        shape = patterns.shape
        found, lost = LatticeFit(rough.centre.double(), rough.G.double()), ~rough.has_lattice
        sites = found.positions(self.hk)
        profile = radial_profile(patterns, rough.centre, sites, self.radius + EDGE_PX)
        maps = patterns
        if self.apart is None:
            maps = windows.piecewise(self._map, patterns, rough.centre, profile)
        free = None
        if settings.search == "free":
            free = peaks.subpixel(
                maps,
                peaks.everywhere(maps, self.radius, settings.most_peaks),
                settings.subpixel,
                settings.upsample,
            )
        reach = settings.search_px
        # In a first round more, disks are taken off where the rough lattice has them.
        for _ in range(settings.iterations + (self.apart is not None)):
            at = found.positions(self.hk)
            usable = windows.inside(at, self.radius + 1, shape)
            lit = usable if self.apart is None else windows.inside(at, -self.radius, shape)
            # To choose among the sites would wait for a GPU.
            seen = lit.any(0) if maps.device.type == "cpu" else slice(None)
            at, usable, hk, ring = (
                at[:, seen].to(maps.dtype),
                usable[:, seen],
                self.hk[seen],
                self.ring[seen],
            )
            if self.apart is not None:
                profile = self._in_gaps(patterns, rough.centre, at, profile)
                maps = windows.piecewise(self._shown, patterns, rough.centre, profile)
                find = partial(self.apart.peaks, reach, settings.subpixel, settings.upsample)
                peak = windows.piecewise(find, maps, at)
                measured, height = peak[..., :2], peak[..., 2]
            elif free is None:
                pixel = peaks.near(maps, at, reach)
                measured, height = peaks.subpixel(maps, pixel, settings.subpixel, settings.upsample)
            else:
                measured, height = _index(*free, at)
            usable &= self.with_beam | (hk != 0).any(-1)
            usable &= torch.linalg.vector_norm(measured - at, dim=-1) <= reach
            height = torch.where(usable, height.clamp_min(0), 0)
            if settings.weights == "information":
                weights = lattice_fit.information(
                    height, self._noise(patterns, measured), self.least, ring
                )
            else:
                weights = (
                    height if settings.weights == "intensity" else (height > 0).to(height.dtype)
                )
            found, lost = track(
                lattice_fit.fit(measured, weights, hk, settings.reject_outliers), rough, lost
            )
            reach = max(reach / 2, 1.5)
        return found.without(lost)

    def _in_gaps(self, patterns: Tensor, centre: Tensor, at: Tensor, profile: Tensor) -> Tensor:
        """The background (B, n) of patterns (B, Qy, Qx) whose disks at `at` (B, S, 2) leave no
        place to their light alone: what is left between them without the disks. The one before,
        `profile` (B, n), tells how bright these are.
        """
        assert self.apart is not None
        exclude = self.radius + min(EDGE_PX, self.gap_px / 2)
        for _ in range(GAP_ROUNDS):
            shown = windows.piecewise(self._shown, patterns, centre, profile)
            rest = patterns - windows.piecewise(self.apart.disks, shown, at)
            profile = radial_profile(rest, centre, at, exclude, self.gap_px)
        return profile

    def _noise(self, patterns: Tensor, at: Tensor) -> Tensor:
        """What moves peaks at `at` (B, S, 2): the sum of counts times the kernel's slope squared,
        the Poisson variance of the map's slope.

        A peak of height h bends in proportion to h, so the variance of its position goes as this
        over h^2.
        """
        values, _, _ = windows.cut(patterns, at, len(self.slope) // 2)
        return values.flatten(-2) @ self.slope.flatten()


def map_strain(counts: Counts, settings: TemplateSettings, device: str) -> Answer:
    """F from the correlation peaks of the Bragg disks; NaN for patterns without a lattice (module
    docstring).
    """
    finder = SiteFinder.learn(counts, device)
    hk = nodes(counts.calibration, counts.detector).to(device)
    calibration = counts.calibration
    nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A)
    matcher = Matcher(
        torch.from_numpy(counts.probe).to(device),
        hk,
        one_hot_rings(counts.calibration, hk),
        finder.tables.radius,
        nominal,
        settings,
    )
    filled = filler(counts.good, device)
    return strain(
        counts, finder, lambda patterns, rough: matcher.refine(filled(patterns), rough), device
    )


def _index(position: Tensor, height: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The peak (B, S, 2), of those found anywhere (B, P, 2), that lies nearest to each site `at`
    (B, S, 2), and its height (B, S).
    """
    nearest = torch.cdist(at, position).argmin(-1)
    return position.gather(1, nearest[..., None].expand(*nearest.shape, 2)), height.gather(
        1, nearest
    )
