"""Disks that nearly touch, under a direct beam a hundred times as bright: hand-made lattices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from started import over_stated
from synthetic import Model, errors, random_deformations

from ccstae import geometry
from ccstae.methods.ccstae import dictionary as dictionaries
from ccstae.methods.ccstae import expected, refine
from ccstae.methods.ccstae import learn as learning
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.shared import lattice_sites
from ccstae.methods.shared.sites import SiteFinder
from ccstae.methods.template import method as template
from ccstae.methods.template.apart import Apart
from ccstae.methods.template.settings import TemplateSettings


@dataclass(frozen=True)
class Touching(Model):
    """Disks of 6 px, 14.4 px apart, in rings that fade, under a beam of `brightness` of them."""

    px: int = 80
    semiangle_mrad: float = 6 * 0.013 * 41.76
    a_A: float = 1 / (14.4 * 0.013 * math.sqrt(3) / 2)
    offset_px: tuple[float, float] = (0.3, -0.2)
    brightness: float = 100.0

    @property
    def nodes(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(h, k) of every disk on the detector, and its share of the electrons."""
        hk = geometry.lattice_nodes(self.G0, 0.7 * self.px * self.pixel_size_inv_A)
        order = ((hk @ self.G0.T) ** 2).sum(1) / (self.G0[:, 0] ** 2).sum()
        share = np.exp(-0.35 * (order - 1)) * np.where((hk[:, 0] - hk[:, 1]) % 3 == 1, 1.25, 0.75)
        share[0] = self.brightness
        return hk, share / share.sum()


F = random_deformations((3, 5), strain=0.01, rotation=0.01, seed=3) @ geometry.rotation_matrix(0.2)


@pytest.mark.parametrize(("brightness", "background"), [(100.0, 0.0), (1.0, 0.0), (10.0, 0.25)])
def test_template_is_right_where_disks_nearly_touch(brightness: float, background: float) -> None:
    model = Touching(brightness=brightness)
    answer = template.map_strain(model.counts(F, 1e6, background), TemplateSettings(), "cpu")
    assert np.abs(errors(answer.F, F)).max() < 3e-3


def test_ccstae_is_right_where_disks_nearly_touch_and_says_how_sure_it_is() -> None:
    answer = ccstae.map_strain(Touching().counts(F, 1e6), CcstaeSettings(), "cpu")
    assert np.abs(errors(answer.F, F)).max() < 3e-3
    assert 0.7 < over_stated(answer, F) < 1.5


def test_disks_apart_are_where_they_were_put() -> None:
    """Five disks in one pattern, exact in Fourier space, the brightest in the middle."""
    model = Touching()
    probe = torch.from_numpy(model.probe).double()
    disk = torch.fft.rfft2(template.kernels.template(probe, 6, "flat", 1))
    apart = Apart(probe, disk, 6)
    at = torch.tensor(
        [[[40.2, 39.7], [27.6, 40.1], [52.5, 39.0], [39.8, 27.2], [40.4, 52.4]]],
        dtype=torch.float64,
    )
    intensity = torch.tensor([[1e6, 1e4, 8e3, 2e4, 5e3]], dtype=torch.float64)
    pattern = torch.fft.irfft2(apart._spectrum(at, intensity), s=(80, 80))
    torch.testing.assert_close(apart.intensities(pattern, at), intensity, rtol=0.05, atol=0)
    off = torch.tensor([0.0, 0.3, -0.3, 0.3, -0.3])[None, :, None]
    found = at + off
    for _ in range(3):
        found = apart.peaks(3.0, "dft", 4, pattern, found)[..., :2]
    assert (found - at).abs().max() < 0.03
    alone = template.peaks.near(torch.fft.irfft2(torch.fft.rfft2(pattern) * disk.conj()), at, 3.0)
    assert (alone - at)[0, 1:].norm(dim=-1).min() > 2  # up the flank of the beam


def teacher() -> tuple[refine.Patterns, dictionaries.Dictionary, refine.State]:
    """One pattern, a dictionary that its scan starts, and a state a little off."""
    model = Touching()
    counts = model.counts(F, 1e6)
    scan = ccstae.ScanPatterns(counts, "cpu")
    rough, _ = scan.locate(SiteFinder.learn(counts, "cpu"), np.arange(4))
    dictionary = learning.start(
        scan.load(np.arange(4)),
        rough,
        scan.nominal,
        torch.from_numpy(counts.probe),
        counts.calibration.centre_px,
        model.radius_px,
    )
    data = scan.load(np.arange(1))
    dose = dictionary.dose(data)
    prior = dictionary.intensity * dose[:, None]
    patterns = dictionary.patterns(data, rough.centre[:1], dose, prior, None)
    stray = torch.zeros(*prior.shape, 2)
    state = refine.State(rough.M[:1], rough.centre[:1], prior.clone(), dose, prior, stray)
    return patterns, dictionary, state


def test_slopes_of_the_likelihood_of_touching_disks_are_those_of_finite_differences() -> None:
    """By the intensities, with the light that disks shed on one another's windows."""
    patterns, dictionary, state = teacher()
    assert dictionary.touching
    assert len(dictionary.g) > 20
    at = refine.evaluate(patterns, dictionary, state)
    for k in (0, 1, 2, 7):
        step = 2e-3 * float(state.intensity[0, k])
        change = torch.zeros_like(state.intensity)
        change[0, k] = step
        up, down = (
            refine.evaluate(patterns, dictionary, replace(state, intensity=state.intensity + d))
            for d in (change, -change)
        )
        slope = float(down.deviance - up.deviance) / (4 * step)
        assert slope == pytest.approx(float(at.intensity_score[0, k]), rel=0.02)


def test_windows_hold_the_light_of_all_disks() -> None:
    patterns, dictionary, state = teacher()
    nothing = torch.zeros_like(patterns.counts)
    disks = expected.with_disks(dictionary, state, nothing)
    on_detector = learning.on_detector(learning.disk_places(dictionary, state), (80, 80))
    # What the border cuts off is less than what disks beyond it hold.
    assert float(disks.sum()) == pytest.approx(
        float((state.intensity * on_detector).sum()), rel=0.02
    )
    patch = patterns.windows(learning.disk_places(dictionary, state), dictionary.offsets)
    torch.testing.assert_close(expected.all_disks(dictionary, state, patch), patch.cut(disks))


@pytest.mark.parametrize(("radius", "spacing", "touch"), [(5.3, 27, 0), (5, 13.5, 0), (5, 12, 1)])
def test_disks_touch_where_the_smallest_window_holds_light_of_the_next(
    radius: float, spacing: float, touch: int
) -> None:
    assert dictionaries.touching(radius, spacing) == bool(touch)
    assert template.MIN_TRENCH_ROOM_RADII * 5.3 < 27 - 5.3  # the scans of the main job have room


def test_room_of_hexagons_and_squares() -> None:
    hexagon = torch.tensor([[1.0, 0.5], [0.0, math.sqrt(0.75)]], dtype=torch.float64) * 9
    assert lattice_sites.room(hexagon) == pytest.approx((9, 9 / math.sqrt(3)))
    assert lattice_sites.room(torch.eye(2) * 8) == pytest.approx((8, 8 / math.sqrt(2)))
