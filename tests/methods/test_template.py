"""Template matching: its parts against direct sums and the full upsampled DFT, the whole against
known deformations and the bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import Model, errors, random_deformations

from ccstae import geometry
from ccstae.methods.shared import peaks
from ccstae.methods.template import kernels
from ccstae.methods.template import method as template
from ccstae.methods.template.settings import TemplateSettings
from ccstae.simulation.ideal import cropped

MODEL = Model(offset_px=(0.3, -0.2))
PROBE = torch.from_numpy(MODEL.probe).double()


def rms(e: np.ndarray) -> np.ndarray:
    return np.sqrt((e.reshape(-1, 4) ** 2).mean(0))


@pytest.mark.parametrize(("kind", "total"), [("flat", 1), ("gaussian", 0), ("sigmoid", 0)])
def test_kernels_are_centred_and_a_trench_balances_the_probe(kind: Any, total: float) -> None:
    kernel = kernels.template(PROBE, MODEL.radius_px, kind, 2.0)
    assert float(kernel.sum()) == pytest.approx(total, abs=1e-9)
    turned = kernel.flip(0, 1).roll((1, 1), (0, 1))  # q -> -q
    torch.testing.assert_close(kernel, turned, rtol=0, atol=1e-5)
    assert float(kernel[0, 0]) > 0.7 * float(kernel.max())
    if kind != "flat":  # nothing beyond the trench but its soft edge
        y, x = torch.meshgrid(
            torch.fft.fftfreq(128) * 128, torch.fft.fftfreq(128) * 128, indexing="ij"
        )
        assert (
            kernel[(x**2 + y**2).sqrt() > 2.9 * MODEL.radius_px].abs().max() < 1e-3 * kernel.max()
        )
        assert kernel.min() < -1e-3


def test_correlation_is_the_direct_sum_and_does_not_wrap_round() -> None:
    rng = np.random.default_rng(0)
    pattern = rng.poisson(2, (1, 24, 24)).astype(float)
    small = np.zeros((32, 32))
    offsets = [(-2, 0), (0, 0), (3, 1), (0, -3)]
    for value, (y, x) in enumerate(offsets, 1):
        small[y, x] = value
    expected = np.zeros((24, 24))
    for y, x in np.ndindex(24, 24):
        for value, (dy, dx) in enumerate(offsets, 1):
            if 0 <= y + dy < 24 and 0 <= x + dx < 24:
                expected[y, x] += value * pattern[0, y + dy, x + dx]
    spectrum = kernels.padded_spectrum(torch.from_numpy(pattern), 32)
    found = kernels.correlate(spectrum, torch.fft.rfft2(torch.from_numpy(small)), 1.0, (24, 24))
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_phase_correlation_of_a_shifted_image_is_one_point() -> None:
    image = torch.rand(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft2(image.roll((3, -5), (0, 1)))[None]
    found = kernels.correlate(spectrum, torch.fft.rfft2(image), 0.0, (32, 32))[0]
    assert divmod(int(found.argmax()), 32) == (3, 32 - 5)
    assert float(found[3, 27]) > 0.95
    assert float(found.abs().sum() - found[3, 27]) < 0.1 * 32 * 32 * float(found[3, 27])


@pytest.mark.parametrize("upsample", [4, 16])
def test_the_local_interpolation_follows_the_full_upsampled_dft(upsample: int) -> None:
    """Peaks of correlation maps against the maximum of the whole map's Fourier series on a grid of
    1/128 px.

    Without the direct beam: a thousand times a disk's height, it rings through the whole series,
    but not into local windows.
    """
    pattern = MODEL.pattern(geometry.deformation(0.01, -0.02, 0.005, 0.02)) * 1e6
    pattern[50:78, 50:78] = 0
    pattern = torch.poisson(torch.from_numpy(pattern), generator=torch.Generator().manual_seed(1))[
        None
    ]
    kernel = kernels.template(PROBE, MODEL.radius_px, "sigmoid", 2.0)
    maps = kernels.correlate(torch.fft.rfft2(pattern), torch.fft.rfft2(kernel), 1.0, (128, 128))
    pixel = peaks.everywhere(maps, MODEL.radius_px, 12)
    found, height = peaks.subpixel(maps, pixel, "dft", upsample)
    series = torch.fft.fft2(maps[0])
    k = torch.fft.fftfreq(128, dtype=torch.float64)
    steps = torch.arange(-96, 97) / 128
    apart = []
    for s in range(12):
        x, y = pixel[0, s, 0] + steps, pixel[0, s, 1] + steps
        fine = (
            torch.exp(2j * torch.pi * y[:, None] * k)
            @ series
            @ torch.exp(2j * torch.pi * k[:, None] * x)
        ).real / 128**2
        iy, ix = divmod(int(fine.argmax()), len(steps))
        apart += [abs(float(found[0, s, 0] - x[ix])), abs(float(found[0, s, 1] - y[iy]))]
        assert float(height[0, s]) == pytest.approx(float(fine.max()), rel=1e-3)
    assert np.median(apart) < 0.01
    assert max(apart) < 0.03


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": "flat"},
        {"kernel": "gaussian"},
        {"subpixel": "parabolic"},
        {"weights": "information"},
        {"weights": "none"},
        {"search": "free"},
        {"reject_outliers": True},
    ],
    ids=str,
)
def test_clean_patterns_give_the_strain(settings: dict[str, Any]) -> None:
    F = random_deformations((4, 4), strain=0.03, rotation=0.05)
    answer = template.map_strain(MODEL.counts(F), TemplateSettings(**settings), "cpu")
    found = errors(answer.F, F)
    assert rms(found).max() < 3e-4
    assert np.abs(found.mean((0, 1))).max() < 1.5e-4
    np.testing.assert_allclose(
        answer.centre_px, np.broadcast_to([64.3, 63.8], (4, 4, 2)), atol=0.03
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"correlation_power": 0.9},
        {"correlation_power": 0.5},
        {"correlation_power": 0.0, "smoothing_px": 1.5},
    ],
    ids=str,
)
def test_hybrid_and_phase_correlation_give_the_strain(settings: dict[str, Any]) -> None:
    F = random_deformations((4, 4), strain=0.03, rotation=0.05)
    for electrons, most in ((np.inf, 12e-4), (1e6, 35e-4)):
        answer = template.map_strain(
            MODEL.counts(F, electrons), TemplateSettings(**settings), "cpu"
        )
        assert rms(errors(answer.F, F)).max() < most
        np.testing.assert_allclose(
            answer.centre_px, np.broadcast_to([64.3, 63.8], (4, 4, 2)), atol=0.3
        )


def test_without_subpixel_positions_the_error_is_that_of_whole_pixels() -> None:
    F = random_deformations((3, 3))
    error = rms(
        errors(template.map_strain(MODEL.counts(F), TemplateSettings(subpixel="none"), "cpu").F, F)
    )
    assert 5e-4 < error.max() < 100e-4


@pytest.mark.parametrize("weights", ["intensity", "information"])
@pytest.mark.parametrize(
    ("electrons", "background", "most"), [(1e5, 0.0, 1.7), (1e5, 0.25, 1.6), (1e4, 0.0, 2.3)]
)
def test_noise_stays_near_the_bound(
    electrons: float, background: float, most: float, weights: Any
) -> None:
    F = random_deformations((8, 8), seed=2)
    found = errors(
        template.map_strain(
            MODEL.counts(F, electrons, background, seed=5), TemplateSettings(weights=weights), "cpu"
        ).F,
        F,
    )
    ratio = rms(found) / MODEL.limit(np.eye(2), electrons, background)
    assert ratio.max() < most
    assert ratio.min() > 0.9


def test_a_halo_on_the_first_ring_moves_no_disk() -> None:
    """A ring of scattered electrons, as of an amorphous film, slopes under every disk."""
    scan = MODEL.counts(F := random_deformations((4, 4)))
    y, x = np.indices((128, 128))
    first_ring_px = np.linalg.norm(scan.calibration.lattice_inv_A[:, 0]) / MODEL.pixel_size_inv_A
    away = np.hypot(x - 64.3, y - 63.8) - 1.15 * first_ring_px
    disk_height = scan.counts[..., 20:, 90:].max()
    halo = disk_height * np.exp(-(away**2) / (2 * 8**2))
    answer = template.map_strain(
        replace(scan, counts=(scan.counts + halo).astype(np.float32)), TemplateSettings(), "cpu"
    )
    assert rms(errors(answer.F, F)).max() < 10e-4


def test_a_beam_on_the_border_moves_no_disk() -> None:
    """The border holds half of the direct beam, and is no measure of what lies beyond it."""
    F = random_deformations((4, 4), strain=0.01, rotation=0.01)
    cut = cropped(MODEL.counts(F), slice(None), slice(60, None))
    whole_probe = np.roll(MODEL.probe, -30, 1)[:, :68]
    answer = template.map_strain(replace(cut, probe=whole_probe), TemplateSettings(), "cpu")
    assert rms(errors(answer.F, F)).max() < 10e-4


@pytest.mark.parametrize("offset_px", [(0.0, 0.0), (0.3, -0.2), (0.5, 0.5)])
def test_disks_of_less_than_two_pixels(offset_px: tuple[float, float]) -> None:
    model = Model(px=32, pixel_size_inv_A=0.05, edge_px=0.15, offset_px=offset_px)
    F = random_deformations((4, 4), seed=3)
    answer = template.map_strain(model.counts(F), TemplateSettings(), "cpu")
    assert rms(errors(answer.F, F)).max() < 20e-4
