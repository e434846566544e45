"""Disk profiles: splines, rendering, tables and their slopes."""

import pytest
import torch
from started import smooth_profile
from synthetic import Model

from ccstae.methods.ccstae import probe_profile, spline, transformer


def test_b_splines_partition_unity_and_integrate_to_one():
    u = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    whole = torch.arange(-3, 4, dtype=torch.float64)
    assert torch.allclose(
        spline.cubic(u[:, None] - whole).sum(1), torch.ones(11, dtype=torch.float64)
    )
    assert float(
        spline.cubic_integral(torch.tensor(2.0)) - spline.cubic_integral(torch.tensor(-2.0))
    ) == pytest.approx(1)
    numeric = torch.autograd.functional.jacobian(lambda v: spline.cubic_integral(v).sum(), u)
    assert torch.allclose(numeric, spline.cubic(u))


def test_rendering_is_the_integral_of_the_profile_over_each_pixel():
    profile, pixels = smooth_profile(), 19
    shift = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    patch = spline.render(profile, shift, pixels)[0]
    # The profile as a function, summed over 20 x 20 points of one pixel.
    p = (torch.arange(20, dtype=torch.float64) + 0.5) / 20 - 0.5
    index = torch.arange(61, dtype=torch.float64) - 30
    for row, column in ((9, 9), (5, 12), (13, 6)):
        y = spline.cubic((row - 9 - shift[0, 1] + p)[:, None] * 3 - index)
        x = spline.cubic((column - 9 - shift[0, 0] + p)[:, None] * 3 - index)
        assert float((y @ profile @ x.T).mean()) == pytest.approx(
            float(patch[row, column]), rel=1e-3
        )


def test_table_agrees_with_rendering_and_its_slopes_with_finite_differences():
    profile, pixels = smooth_profile(), 19
    offsets = transformer.square(pixels, torch.device("cpu"))
    table = spline.PhaseTable(profile[None], pixels, offsets)
    shift = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    images, expansion = table(shift)
    T, Tx, Ty = (expansion @ images).unbind(1)
    assert torch.allclose(T, spline.render(profile, shift, pixels).reshape(40, -1), atol=2e-5)
    step = 1e-5
    for axis, slope in ((0, Tx), (1, Ty)):
        move = torch.zeros(2, dtype=torch.float64)
        move[axis] = step
        numeric = (
            spline.render(profile, shift + move, pixels)
            - spline.render(profile, shift - move, pixels)
        ).reshape(40, -1) / (2 * step)
        assert torch.allclose(slope, numeric, atol=2e-3 * float(numeric.abs().max()))


def test_adjoint_is_the_transpose_of_rendering():
    generator = torch.Generator().manual_seed(1)
    profile, pixels = smooth_profile(), 19
    shift = torch.rand(7, 2, dtype=torch.float64, generator=generator) - 0.5
    patches = torch.rand(7, pixels, pixels, dtype=torch.float64, generator=generator)
    left = (spline.render(profile, shift, pixels) * patches).sum()
    right = (profile * spline.adjoint(patches, shift, 61)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)
    flat = spline.adjoint_of_flat(torch.ones(7, dtype=torch.float64), shift, pixels, 61)
    assert torch.allclose(flat, spline.adjoint(torch.ones_like(patches), shift, 61))


def test_profile_from_the_vacuum_probe_renders_the_probe():
    model = Model()
    probe = torch.from_numpy(model.probe)
    profile = probe_profile.from_probe(probe, model.calibration.centre_px, 19)
    patch = spline.render(profile, torch.zeros(1, 2), 19)[0]
    assert float((patch - probe[55:74, 55:74]).abs().sum()) < 1e-3
    assert (profile >= 0).all()
