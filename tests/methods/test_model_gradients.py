"""Gradients of the model, held against finite differences in float64: rendering, likelihood,
encoder's loss, learning of the disks.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from started import patterns_at, smooth_profile, started
from torch import Tensor

from ccstae.methods.ccstae import affine, refine, spline, transformer
from ccstae.methods.ccstae import encoder as encoders


def test_derivatives_of_both_transformers_are_those_of_finite_differences():
    """Expected counts of unit disks, float64: by their place, and, warped, by the deformation."""
    generator = torch.Generator().manual_seed(2)
    profile, pixels = smooth_profile(), 19
    direct = disk = affine.Surface(profile, pixels)
    offsets = transformer.square(pixels, torch.device("cpu"))
    M = torch.eye(2, dtype=torch.float64) + 0.03 * torch.randn(
        5, 2, 2, dtype=torch.float64, generator=generator
    )
    shift = torch.rand(5, 3, 2, dtype=torch.float64, generator=generator) - 0.5
    _, by_place, by_M = affine.render_warped(direct, disk, M, offsets, shift)
    step = 1e-7  # small: where the nearest grid point changes, the surface has a step of 1e-5

    def slope(dM: Tensor, ds: Tensor) -> Tensor:
        dM, ds = step * dM, step * ds
        up = affine.render_warped(direct, disk, M + dM, offsets, shift + ds)[0]
        down = affine.render_warped(direct, disk, M - dM, offsets, shift - ds)[0]
        return (up - down) / (2 * step)

    unit = torch.eye(4, dtype=torch.float64)
    for axis in range(2):
        assert torch.allclose(by_place[:, :, axis], slope(0 * M, unit[axis, :2]), atol=1e-7)
    for entry in range(4):
        assert torch.allclose(
            by_M[:, :, entry], slope(unit[entry].reshape(2, 2), 0 * shift), atol=1e-7
        )


def test_a_warp_by_the_unit_matrix_is_the_rigid_rendering_and_any_other_keeps_the_counts():
    profile, pixels = smooth_profile(), 19
    surface, offsets = (
        affine.Surface(profile, pixels),
        transformer.square(pixels, torch.device("cpu")),
    )
    shift = (
        torch.rand(6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.5
    )
    T, by_place, _ = affine.render_warped(
        surface, surface, torch.eye(2, dtype=torch.float64).expand(6, 2, 2), offsets, shift
    )
    images, expansion = spline.PhaseTable(profile[None], pixels, offsets)(shift.reshape(-1, 2))
    rigid, Tx, Ty = (expansion @ images).unflatten(0, T.shape[:2]).unbind(2)
    for one, other in ((T, rigid), (by_place[:, :, 0], Tx), (by_place[:, :, 1], Ty)):
        assert torch.allclose(one, other, atol=2e-3)
    M = torch.tensor([[1.05, 0.02], [-0.01, 0.97]], dtype=torch.float64).expand(6, 2, 2)
    warped = affine.render_warped(surface, surface, M, offsets, shift)[0]
    assert torch.allclose(warped.sum(-1), T.sum(-1), rtol=1e-4)
    # A disk of radius 4 px, 1.1 times wider along y than along x, is stretched by M: second moments
    # go as M S M^T.
    d = (offsets - shift[:1, :1]).reshape(-1, 2)
    moment = [
        torch.einsum("p,pi,pj->ij", t / t.sum(), d - (t @ d) / t.sum(), d - (t @ d) / t.sum())
        for t in (T[0, 0], warped[0, 0])
    ]
    box = torch.eye(2, dtype=torch.float64) / 12  # of the pixel, which is not stretched
    assert torch.allclose(moment[1] - box, M[0] @ (moment[0] - box) @ M[0].T, atol=0.03)


def doubled(one):
    """The same in float64."""
    floats = {
        name: v.double()
        for name, v in vars(one).items()
        if isinstance(v, Tensor) and v.dtype == torch.float32
    }
    return replace(one, **floats)


def straying(patterns, state, stray_px):
    """The patterns whose disks may stray by `stray_px`, and states where they do."""
    generator = torch.Generator().manual_seed(6)
    stray = stray_px * torch.randn(state.stray.shape, dtype=torch.float64, generator=generator)
    stray[:, 0] = 0
    precision = torch.full(stray.shape[:2], stray_px**-2, dtype=torch.float64)
    return replace(patterns, stray_precision=precision), replace(state, stray=stray)


@pytest.mark.parametrize("stray_px", [0.0, 0.05, 0.3])
def test_slope_of_the_likelihood_is_its_derivative_in_float64(stray_px):
    """The slope is that of minus half the deviance where the intensities, and the strays where
    disks have them, follow to their conditional maximum.
    """
    patterns, dictionary, state = started(8, 0.5)
    dictionary, state, patterns = doubled(dictionary), doubled(state), doubled(patterns)
    if stray_px:
        patterns, state = straying(patterns, state, stray_px)
    state = replace(state, M=state.M + 0.002, centre=state.centre + 0.05)
    at = refine.evaluate(patterns, dictionary, state)
    deviation = torch.diagonal(at.information, dim1=1, dim2=2).rsqrt()
    still = refine.moved_by(state, at, torch.zeros(8, 7, dtype=torch.float64), dictionary.g)
    for k in range(7):
        size = 4e-3 * deviation[:, k]
        steps = torch.zeros(8, 7, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            steps[:, k] = sign * size
            moved = refine.moved_by(state, at, steps, dictionary.g)
            followed = replace(
                moved,
                intensity=moved.intensity - (still.intensity - state.intensity),
                stray=moved.stray - (still.stray - state.stray),
            )
            values.append(refine.evaluate(patterns, dictionary, followed).deviance)
        numeric = -(values[0] - values[1]) / (4 * size)
        assert torch.allclose(
            numeric * deviation[:, k], at.score[:, k] * deviation[:, k], atol=0.02, rtol=0.01
        ), k
        # What is left is from disks that move on to the next phase of their table.
        off = ((numeric - at.score[:, k]) * deviation[:, k]).abs()
        assert float(off.median()) < 2e-3, k


def test_strays_step_to_where_the_deviance_is_least():
    """With the lattice held, a step of the strays goes along their slope and ends on it."""
    patterns, dictionary, state = started(8, 0.25, 1e6)
    dictionary, state, patterns = doubled(dictionary), doubled(state), doubled(patterns)
    patterns, state = straying(patterns, state, 0.1)
    still = torch.zeros(8, 7, dtype=torch.float64)
    slopes = []
    for _ in range(6):
        at = refine.evaluate(patterns, dictionary, state)
        for axis in range(2):
            step = torch.zeros_like(state.stray)
            step[..., axis] = 1e-4
            up, down = (
                refine.evaluate(patterns, dictionary, replace(state, stray=state.stray + s * step))
                for s in (1, -1)
            )
            # of all disks together, which the lattice does not hold
            slopes.append(float(((up.deviance - down.deviance) / 2e-4).abs().max()))
        state = refine.moved_by(state, at, still, dictionary.g)
    assert max(slopes[-2:]) < 0.02 * max(slopes[:2])


@pytest.mark.parametrize("stray_px", [0.0, 0.02, 0.3])
def test_information_is_the_curvature_of_the_deviance_where_counts_are_those_expected(stray_px):
    patterns, dictionary, state = started(8, 0.5)
    dictionary, state, patterns = doubled(dictionary), doubled(state), doubled(patterns)
    window = patterns.windows(
        transformer.positions(state.M, state.centre, dictionary.g), dictionary.offsets
    )
    images, expansion = dictionary.images_near(
        window.shift(transformer.positions(state.M, state.centre, dictionary.g))
    )
    unit = (expansion[:, :1] @ images).reshape(window.index.shape)
    expected = patterns.background.flatten(1) + dictionary.floor
    disks = state.intensity[..., None] * unit * window.inside
    expected = expected.scatter_add(1, window.index.flatten(1), disks.flatten(1))
    patterns = replace(patterns, counts=expected.reshape(patterns.counts.shape))
    if stray_px:
        patterns, _ = straying(patterns, state, stray_px)
    at = refine.evaluate(patterns, dictionary, state)
    deviation = torch.diagonal(at.information, dim1=1, dim2=2).rsqrt()
    assert float((at.score * deviation).abs().max()) < 1e-3
    generator = torch.Generator().manual_seed(7)
    along = [*torch.eye(7, dtype=torch.float64)]
    along += [torch.randn(7, dtype=torch.float64, generator=generator) for _ in range(5)]
    for direction in along:
        steps = 0.1 * direction * deviation
        rises = sum(
            refine.evaluate(
                patterns, dictionary, refine.moved_by(state, at, sign * steps, dictionary.g)
            ).deviance
            for sign in (1, -1)
        )
        rises = rises - 2 * at.deviance
        stated = 2 * torch.einsum("na,nab,nb->n", steps, at.information, steps)
        assert torch.allclose(rises, stated, rtol=0.02), direction


def test_curvature_of_the_likelihood_is_that_of_the_counts_at_hand():
    """At the maximum, but for a part that is small where disks stand little above the background;
    Fisher's is that of no one's counts.
    """
    patterns, dictionary, state = started(16, 0.7)
    dictionary, state, patterns = doubled(dictionary), doubled(state), doubled(patterns)
    state, at = refine.refine(patterns, dictionary, state, 40, tolerance=1e-12)
    deviation = torch.diagonal(at.information, dim1=1, dim2=2).rsqrt()
    for k in range(4):
        slopes = []
        for sign in (1, -1):
            steps = torch.zeros(16, 7, dtype=torch.float64)
            steps[:, k] = sign * 1e-3 * deviation[:, k]
            slopes.append(
                refine.evaluate(
                    patterns, dictionary, refine.moved_by(state, at, steps, dictionary.g)
                ).score
            )
        numeric = (
            -(slopes[0] - slopes[1]) / 2e-3 * deviation
        )  # column k, in units of the information
        scale = deviation * deviation[:, k, None]
        observed = (numeric - at.observed_information[:, :, k] * scale).abs().median()
        fisher = (numeric - at.information[:, :, k] * scale).abs().median()
        assert float(observed) < 0.35 * float(fisher), k


def test_warped_patterns_are_recovered_by_the_affine_transformer_alone():
    patterns, dictionary, state = started(8, 0.25)
    patch = transformer.patches(
        transformer.positions(state.M, state.centre, dictionary.g), dictionary.offsets, (128, 128)
    )
    shift = patch.shift(transformer.positions(state.M, state.centre, dictionary.g))
    direct = affine.Surface(dictionary.direct, dictionary.pixels)
    disk = affine.Surface(dictionary.disk, dictionary.pixels)
    T = affine.render_warped(direct, disk, state.M, dictionary.offsets, shift)[0]
    expected = patterns.background.reshape(8, -1).clone()
    expected.scatter_add_(
        1,
        patch.index.reshape(8, -1),
        (state.intensity[..., None] * T * patch.inside).reshape(8, -1),
    )
    away = replace(state, M=state.M + 0.01, centre=state.centre + 0.1)
    counts = patterns_at(dictionary, expected.reshape(8, 128, 128), state)
    warped, _ = refine.refine(counts, dictionary, away, 30, affine.evaluate_warped)
    rigid, _ = refine.refine(counts, dictionary, away, 30)
    assert float((warped.M - state.M).abs().max()) < 2e-5
    assert float((rigid.M - state.M).abs().max()) > 1e-4


def test_gradients_of_the_encoder_s_loss_are_those_of_finite_differences():
    """In float64, through the network and the lattice fit, with respect to every weight."""
    generator = torch.Generator().manual_seed(4)
    torch.manual_seed(4)
    encoder = encoders.Encoder(width=3).double()
    n, K = 2, 5
    maps = 10 * torch.randn(
        n, K, (2 * encoders.REACH + 1) ** 2, dtype=torch.float64, generator=generator
    )
    offset, dM, dc = (
        torch.randn(*size, dtype=torch.float64, generator=generator)
        for size in ((n, K, 2), (n, 2, 2), (n, 2))
    )
    g = 20 * torch.randn(K, 2, dtype=torch.float64, generator=generator)
    seen = torch.ones(n, K, dtype=torch.bool)
    names, values = zip(
        *((name, value.detach().requires_grad_()) for name, value in encoder.named_parameters()),
        strict=True,
    )

    def loss(*weights):
        network = partial(
            torch.func.functional_call, encoder, dict(zip(names, weights, strict=True))
        )
        return encoders.loss(network, maps, 0.3 * offset, g, seen, 0.01 * dM, 0.1 * dc)

    assert torch.autograd.gradcheck(loss, values)


def test_updates_of_the_disk_follow_the_gradient_of_the_likelihood():
    """Expectation maximisation moves a profile C by C dL/dC over what is positive in it: gain less
    norm is the gradient.
    """
    generator = torch.Generator().manual_seed(5)
    n, pixels = 4, 19
    shift = torch.rand(n, 2, dtype=torch.float64, generator=generator) - 0.5
    intensity = 50 + 50 * torch.rand(n, dtype=torch.float64, generator=generator)
    counts = torch.poisson(
        intensity[:, None, None] * 0.02 * torch.ones(n, pixels, pixels, dtype=torch.float64),
        generator=generator,
    )
    profile = smooth_profile().requires_grad_()

    def expected(C):
        return intensity[:, None, None] * spline.render(C, shift, pixels) + 0.1

    m = expected(profile)
    (slope,) = torch.autograd.grad((counts * m.log() - m).sum(), profile)
    gain = spline.adjoint((counts / m).detach() * intensity[:, None, None], shift, 61)
    assert torch.allclose(slope, gain - spline.adjoint_of_flat(intensity, shift, pixels, 61))
