"""The bound, against closed forms and against finite differences of patterns drawn anew."""

import numpy as np
import pytest
import torch
from exact import made
from scipy.special import erf
from synthetic import Model

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.io.calibration import Calibration
from ccstae.simulation import bound, noise, simulate, uniform


def disks(centres, radius, edge, px):
    """Soft disks of unit sum, (px, px), and their slopes with a shift in x and y, pixel-sampled."""
    y, x = np.mgrid[:px, :px].astype(float)
    image, slope = np.zeros((px, px)), np.zeros((2, px, px))
    for cx, cy in centres:
        r = np.hypot(x - cx, y - cy)
        disk = 0.5 * (1 - erf((r - radius) / (np.sqrt(2) * edge)))
        fall = np.exp(-((r - radius) ** 2) / (2 * edge**2)) / (np.sqrt(2 * np.pi) * edge)
        total = disk.sum()
        image += disk / total
        slope += fall * np.stack([x - cx, y - cy]) / np.maximum(r, 1e-9) / total
    return image, slope


def test_six_equal_disks_give_the_closed_form():
    # Six disks at radius G, each placed with error s: s / (sqrt 3 G) for exx and eyy, s / (sqrt 6
    # G) for exy and theta. The centre is free, but six disks round it determine it apart from the
    # strain.
    px, G, radius, edge, N = 256, 80.0, 20.0, 1.2, 1e4
    turn = np.arange(6) * np.pi / 3
    lattice = G * np.array([[1.0, np.cos(np.pi / 3)], [0.0, np.sin(np.pi / 3)]])
    calibration = Calibration(80, 3, 1.0, 1.0, (128.0, 128.0), lattice, 6)
    centres = 128 + G * np.stack([np.cos(turn), np.sin(turn)], -1)
    image, slope = disks(centres, radius, edge, px)
    share = 1 / 6
    images = bound.shift_images(
        (share * slope)[None].astype(np.float32), np.eye(2)[None], calibration
    )
    level = Level(background=0, electrons=N)
    found = bound.bound(
        (share * image)[None].astype(np.float32), images, np.eye(2)[None], level, calibration
    )[0]
    # Position error of one disk with N / 6 counts: sqrt(R s / (0.903 N)).
    s = np.sqrt(radius * edge / (0.903 * N / 6))
    assert found == pytest.approx([s / (np.sqrt(3) * G)] * 2 + [s / (np.sqrt(6) * G)] * 2, rel=0.03)


@pytest.mark.parametrize("w", [0.0, 0.25, 0.7])
def test_bound_agrees_with_patterns_drawn_at_f_plus_and_minus_a_step(w):
    model = Model()
    F = geometry.deformation(0.015, -0.01, 0.008, 0.02)
    expected = model.limit(F, 1e5, w)
    step = 0.02
    gradient = np.stack(
        [
            (model.pattern(F, (step, 0), 9) - model.pattern(F, (-step, 0), 9)) / (2 * step),
            (model.pattern(F, (0, step), 9) - model.pattern(F, (0, -step), 9)) / (2 * step),
        ]
    )
    images = bound.shift_images(gradient[None].astype(np.float32), F[None], model.calibration)
    pattern = model.pattern(F, oversample=9)[None].astype(np.float32)
    found = bound.bound(
        pattern, images, F[None], Level(background=w, electrons=1e5), model.calibration
    )[0]
    # At w = 0 the bound leans on edge pixels that expect far less than a count, where the two ways
    # of differentiating differ most.
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("w", [0.0, 0.25, 0.7])
def test_bound_agrees_with_patterns_simulated_at_f_plus_and_minus_a_step(w):
    """Simulated anew, with all that strain changes in a pattern: what disk intensities tell of it
    is not in the bound, and little.
    """
    config, scene = made({"kind": "uniform"})
    calibration = simulate.calibration(config, scene)
    F, step = geometry.deformation(0.015, -0.01, 0.008, 0.02), 2e-4
    steps = step * np.eye(4).reshape(4, 2, 2)
    drawer = uniform.UniformRenderer(config, scene)
    patterns, gradient = drawer.patterns(
        np.concatenate([F[None], F + steps, F - steps]), np.ones(9)
    )
    level = Level(background=w, electrons=1e5)
    images = bound.shift_images(gradient[:1], F[None], calibration)
    found = bound.bound(patterns[:1], images, F[None], level, calibration)[0]
    expected = noise.expectation(patterns[:1], level).ravel()
    slopes = (
        np.concatenate([gradient[0], (patterns[1:5] - patterns[5:]) / (2 * step)])
        .astype(float)
        .reshape(6, -1)
    )
    slopes *= level.electrons * (1 - w) / patterns[0].sum(dtype=float)
    seen = expected > 0
    information = (slopes[:, seen] / expected[seen]) @ slopes[:, seen].T
    jacobian = geometry.components_jacobian(F[None])[0]
    direct = np.sqrt(np.diag(jacobian @ np.linalg.inv(information)[2:, 2:] @ jacobian.T))
    assert found == pytest.approx(direct, rel=0.03)


def test_bound_falls_with_the_root_of_the_dose():
    model = Model()
    F = np.eye(2)[None]
    gradient = np.stack(
        [
            model.pattern(F[0], (0.5, 0)) - model.pattern(F[0], (-0.5, 0)),
            model.pattern(F[0], (0, 0.5)) - model.pattern(F[0], (0, -0.5)),
        ]
    )
    images = bound.shift_images(gradient[None].astype(np.float32), F, model.calibration)
    pattern = model.pattern(F[0])[None].astype(np.float32)
    low, high = (
        bound.bound(pattern, images, F, Level(background=0.25, electrons=n), model.calibration)
        for n in (1e3, 1e5)
    )
    assert low == pytest.approx(10 * high)
    clean = bound.bound(
        pattern, images, F, Level(background=0, electrons=float("inf")), model.calibration
    )
    assert not clean.any()


def test_nearest_node_is_the_nearest_of_all():
    model = Model()
    F = geometry.deformation(0.03, -0.02, 0.015, 0.4)
    found = bound.nearest_node(F[None], model.calibration, (40, 50))[0]
    nodes = geometry.lattice_nodes(model.G0, 3.0) @ (geometry.inverse_transpose(F) @ model.G0).T
    x, y = np.meshgrid(np.arange(50) - 64.0, np.arange(40) - 64.0)
    q = np.stack([x.ravel(), y.ravel()]) * model.pixel_size_inv_A
    nearest = torch.cdist(torch.from_numpy(q.T.copy()), torch.from_numpy(nodes)).argmin(1).numpy()
    assert np.abs(found.numpy().T - nodes[nearest]).max() < 1e-12


def test_bad_pixels_carry_no_information():
    rng = np.random.default_rng(0)
    patterns = rng.uniform(1, 2, (2, 16, 16)).astype(np.float32)
    images = torch.from_numpy(rng.normal(size=(2, 6, 256)))
    level = Level(background=0.25, electrons=1e5)
    good = rng.random((16, 16)) < 0.6
    whole = bound.fisher(patterns, images, level)
    parts = [bound.fisher(patterns, images, level, pixels) for pixels in (good, ~good)]
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-12)
    # What the good pixels tell alone, summed by hand.
    expected = noise.expectation(patterns, level)[:, good]
    share = level.electrons * (1 - level.background) / patterns.sum((-1, -2), dtype=float)
    slopes = images.numpy().reshape(2, 6, 16, 16)[..., good] * share[:, None, None]
    alone = np.einsum("nap,nbp->nab", slopes / expected[:, None], slopes)
    np.testing.assert_allclose(parts[0], alone, rtol=1e-6)
