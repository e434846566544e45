"""The published CC-ST-AE: bounds, conventions, cycles, gradients, and the whole method on patterns
made by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Model, errors, random_deformations
from torch import Tensor

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.methods.ccstae_2023 import losses, masks, network, train, warp
from ccstae.methods.ccstae_2023 import method as ccstae_2023
from ccstae.methods.ccstae_2023.settings import Ccstae2023Settings

MODEL = Model()
LIMITS = network.Limits(0.05, 0.1, 0.1, 2.0)
SMALL = Ccstae2023Settings(
    channels=8,
    pools=(3, 2, 1),
    binning=4,
    upsample=2,
    batch=(8, 8),
    epochs=(4, 16),
    learning_rate=(1e-3, 2e-3),
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_identity(n: int, size: float = 0.02) -> Tensor:
    return torch.eye(2, dtype=torch.float64) + size * randn(n, 2, 2)


def spots(model: Model = MODEL) -> Tensor:
    """The six {11-20} nodes of the undeformed lattice, pixels from the centre."""
    hk, _ = model.nodes
    at = hk @ model.G0.T / model.pixel_size_inv_A
    length = np.linalg.norm(at, axis=1)
    return torch.from_numpy(
        at[np.isclose(length, np.sqrt(3) * np.linalg.norm(model.G0[:, 0]) / model.pixel_size_inv_A)]
    )


def smooth(n: int = 41) -> Tensor:
    """A smooth image (1, n, n)."""
    x = torch.arange(n, dtype=torch.float64) - n // 2
    r2 = (x[None, :] - 3) ** 2 + 2 * (x[:, None] + 2) ** 2
    return torch.exp(-r2 / 120)[None] + 0.3 * torch.cos(x / 7)[None, None, :]


def test_scales_and_shear_stay_in_bounds_and_the_angle_where_it_belongs() -> None:
    raw = 100 * randn(50, 6)
    S = network.stretch(raw, LIMITS)
    assert ((S.diagonal(dim1=1, dim2=2) - 1).abs() <= 0.05 + 1e-12).all()
    assert (S[:, 0, 1].abs() <= 0.1 + 1e-12).all()
    assert torch.equal(S, S.mT)
    base = randn(50, seed=1)
    assert ((network.angle(raw, LIMITS, base) - base).abs() <= 0.1 + 1e-12).all()
    free = network.angle(raw, LIMITS, None)
    assert free.min() == 0
    assert free.max() > 10


def test_the_affine_is_the_inverse_transpose_of_a_left_polar_decomposition() -> None:
    raw, base = randn(20, 6), randn(20, seed=1)
    S, angle = network.stretch(raw, LIMITS), network.angle(raw, LIMITS, base)
    V, theta = geometry.polar(geometry.inverse_transpose((S @ network.rotation(angle)).numpy()))
    np.testing.assert_allclose(V, np.linalg.inv(S.numpy()), atol=1e-12)
    np.testing.assert_allclose(geometry.wrap(theta - angle.numpy(), 1), 0, atol=1e-12)


def test_the_code_is_one_hot_and_its_gradient_that_of_the_softmax() -> None:
    torch.manual_seed(0)
    code = network.SparseCode(20, 3).double()
    z = randn(30, 20).requires_grad_(True)
    hot = code(z)
    np.testing.assert_allclose(
        np.sort(hot.detach().numpy(), 1), np.tile([0.0, 0, 1], (30, 1)), atol=1e-12
    )
    assert torch.equal(hot.argmax(1), code.score(z).argmax(1))
    weight = randn(30, 3, seed=2)
    (got,) = torch.autograd.grad((hot * weight).sum(), z)
    (expected,) = torch.autograd.grad((code.score(z).softmax(-1) * weight).sum(), z)
    torch.testing.assert_close(got, expected)


def test_warp_then_inverse_warp_is_the_identity() -> None:
    image = smooth()
    A = near_identity(1, 0.03)
    whole = warp.disk(29, 1.0, image)
    whole = whole[(whole.abs() <= 20).all(1)].expand(1, -1, -1)
    there = warp.sample(image, warp.transform(A, whole) + 20).reshape(1, 41, 41)
    inner = warp.disk(12, 1.0, image).expand(1, -1, -1)
    back = warp.sample(there, warp.transform(torch.linalg.inv(A), inner) + 20)
    assert (back - warp.sample(image, inner + 20)).abs().max() < 6e-3  # two bicubic interpolations
    assert (warp.sample(there, inner + 20) - warp.sample(image, inner + 20)).abs().max() > 3e-2


def test_the_affine_of_a_deformation_brings_its_pattern_back_to_the_undeformed_one() -> None:
    F = geometry.deformation(0.02, -0.015, 0.01, 0.03)
    moved = torch.from_numpy(MODEL.pattern(F))[None]
    at_rest = torch.from_numpy(MODEL.pattern(np.eye(2)))[None]
    origin, p = torch.full((1, 2), 64.0, dtype=torch.float64), spots()[None]
    radius = 1.6 * MODEL.radius_px
    coarse, fine = warp.disk(radius, 1.0, p), warp.disk(radius, 0.5, p)
    expected = warp.revised(
        at_rest, torch.eye(2, dtype=torch.float64)[None], origin, p, coarse, fine, 1.5
    )

    def miss(A: np.ndarray) -> float:
        seen = warp.revised(moved, torch.from_numpy(A)[None], origin, p, coarse, fine, 1.5)
        return float((seen - expected).square().mean() / expected.square().mean())

    assert miss(geometry.inverse_transpose(F)) < 1e-3
    assert miss(np.eye(2)) > 5e-2
    assert miss(F) > 5e-2
    assert miss(F.T) > 5e-2


def test_revised_spots_move_but_keep_their_shape() -> None:
    at_rest = torch.from_numpy(MODEL.pattern(np.eye(2)))[None]
    A = torch.diag(torch.tensor([0.94, 1.0], dtype=torch.float64))[None]
    origin, p = torch.full((1, 2), 64.0, dtype=torch.float64), spots()[:1][None]  # on no axis
    window = warp.disk(1.8 * MODEL.radius_px, 0.25, p)
    at = p[:, :, None] + window
    plain = warp.sample(at_rest, (warp.transform(A, at) + origin[:, None, None])[:, 0])[:, None]
    revised = warp.revised(
        at_rest, A, origin, p, warp.disk(1.8 * MODEL.radius_px, 1.0, p), window, 1.5
    )
    centre = warp.mass_centres(plain, at, 0.0)[0, 0]
    revised_centre = warp.mass_centres(revised, at, 0.0)[0, 0]
    torch.testing.assert_close(centre, torch.linalg.solve(A[0], p[0, 0]), atol=0.02, rtol=0)
    torch.testing.assert_close(revised_centre, centre, atol=0.06, rtol=0)

    def width(v: Tensor, c: Tensor) -> float:
        return float(((v * (at[..., 0] - c[0]) ** 2).sum() / v.sum()).sqrt())

    round_one = warp.revised(
        at_rest, torch.eye(2, dtype=torch.float64)[None], origin, p, window, window, 1.5
    )
    still = width(round_one, warp.mass_centres(round_one, at, 0.0)[0, 0])
    assert width(revised, revised_centre) == pytest.approx(still, rel=0.005)
    assert width(plain, centre) == pytest.approx(still / 0.94, rel=0.01)


def warped_of(A: Tensor, pictures: Tensor) -> losses.Warped:
    code = torch.nn.functional.one_hot(torch.arange(len(A)) % len(pictures), len(pictures)).to(A)
    return losses.Warped(A, torch.full((len(A), 2), 20.3).to(A), code, pictures)


def test_ring_cycles_have_true_gradients() -> None:
    patterns = smooth().expand(2, -1, -1)
    ring = warp.ring(6, 9, patterns) + 0.2
    A, pictures = near_identity(2).requires_grad_(True), (0.8 * smooth(35)).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda a, d: losses.ring_cycles(patterns, warped_of(a, d), ring),
        (A, pictures),
        nondet_tol=1e-12,
    )


def test_revised_spots_have_true_gradients_where_the_crop_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warp, "mass_centres", lambda values, at, coefficient: at.mean(-2))
    p = torch.tensor([[[8.0, 1.0], [-5.0, 6.0]]], dtype=torch.float64)
    window = warp.disk(3, 1.0, p) + 0.1
    image, A = smooth().requires_grad_(True), near_identity(1).requires_grad_(True)
    origin = torch.full((1, 2), 20.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda i, a: warp.revised(i, a, origin, p, window, window, 1.5),
        (image, A),
        nondet_tol=1e-12,
    )


def test_regularisers_and_parameters_have_true_gradients() -> None:
    raw, base = randn(4, 6).requires_grad_(True), randn(4, seed=1)
    found = torch.tensor([1.0, 1, 0, 1], dtype=torch.float64)
    check = torch.autograd.gradcheck
    assert check(
        lambda r: network.stretch(r, LIMITS) @ network.rotation(network.angle(r, LIMITS, base)),
        (raw,),
    )
    assert check(lambda r: losses.gauge(network.stretch(r, LIMITS), found), (raw,))
    assert check(lambda r: losses.orientation(r[:, 3], base, found, 6), (raw,))
    assert check(lambda r: losses.mean_excess(r, 0.03), (raw,))


def test_the_gauge_and_the_orientation_measure_what_they_say() -> None:
    S = torch.eye(2).expand(3, 2, 2) + torch.tensor([0.03, -0.03, 0.2])[:, None, None] * torch.eye(
        2
    )
    assert float(losses.gauge(S, torch.tensor([1.0, 1, 0]))) == pytest.approx(0, abs=1e-12)
    assert float(losses.gauge(S, torch.tensor([1.0, 0, 0]))) == pytest.approx(2 * 0.03**2, rel=1e-4)
    turned = torch.tensor([0.01 + np.pi / 3])
    assert float(losses.orientation(turned, torch.zeros(1), torch.ones(1), 6)) == pytest.approx(
        0.01**2 / 2, rel=1e-2
    )


@pytest.mark.parametrize("offset", [(0.0, 0.0), (1.7, -2.3)])
def test_masks_are_found_from_the_counts(offset: tuple[float, float]) -> None:
    model = Model(offset_px=offset)
    F = geometry.deformation(0.02, 0.02, 0, np.linspace(-0.2, 0.2, 9).reshape(3, 3))
    found = masks.find_masks(model.counts(F, 1e5), 120, "cpu")
    assert found.has_lattice.all()
    assert found.scale == pytest.approx(1 / 1.02, abs=0.012)  # half a step of the site finder
    assert len(found.spots) == 6
    np.testing.assert_allclose(
        np.sort(found.spots.norm(dim=1)),
        np.full(6, float(spots().norm(dim=1)[0])) * found.scale,
        rtol=1e-5,
    )
    np.testing.assert_allclose(found.angle, np.linspace(-0.2, 0.2, 9), atol=0.03)
    assert found.unit == pytest.approx(1.2e-3 * 1e5 / (np.pi * model.radius_px**2), rel=0.15)


def test_on_a_small_detector_the_ring_is_the_one_that_fits() -> None:
    model = Model(px=96)
    found = masks.find_masks(model.counts(random_deformations((2, 2)), 1e5), 120, "cpu")
    first = np.linalg.norm(model.G0[:, 0]) / model.pixel_size_inv_A
    np.testing.assert_allclose(found.spots.norm(dim=1) / found.scale, np.full(6, first), rtol=1e-5)


@pytest.mark.long
def test_training_beats_no_strain_by_far_on_clean_patterns_of_known_strain() -> None:
    F = random_deformations((12, 12), strain=0.02, rotation=0.02, seed=1)
    answer = ccstae_2023.map_strain(MODEL.counts(F, 1e6), SMALL, "cpu")
    reference = np.ones((12, 12), bool)
    truth = geometry.regauge(F, reference)
    e = errors(geometry.regauge(geometry.to_branch(answer.F, F, 6), reference), truth)
    none = errors(np.broadcast_to(np.eye(2), F.shape), truth)
    ratio = np.sqrt((e**2).mean((0, 1)) / (none**2).mean((0, 1)))
    assert (ratio < 0.5).all(), ratio
    assert answer.label is None
    assert answer.dictionary is not None
    assert answer.dictionary.shape == (1, 128, 128)


def test_one_seed_gives_one_answer_and_pictures_without_spots_are_background() -> None:
    tiny = SMALL.model_copy(update={"epochs": (1, 1), "entries": 2})
    counts = MODEL.counts(random_deformations((3, 4)), 1e5)
    first = ccstae_2023.map_strain(counts, tiny, "cpu")
    again = ccstae_2023.map_strain(counts, tiny, "cpu")
    assert first.F.tobytes() == again.F.tobytes()
    assert first.label is not None
    assert again.label is not None
    assert first.label.tobytes() == again.label.tobytes()
    other = ccstae_2023.map_strain(counts, tiny.model_copy(update={"seed": 1}), "cpu")
    assert not np.array_equal(other.F, first.F)
    found = masks.find_masks(counts, 120, "cpu")
    axis = torch.arange(120.0) - 60
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    disks = ((places[:, :, None] - found.spots).norm(dim=-1).amin(-1) < found.radius).float()
    assert ccstae_2023.materials(
        torch.stack([0.5 + disks, 1 + 0.01 * disks, 0.6 * disks]), found
    ).tolist() == [1, 0, 2]


def test_a_scan_without_a_lattice_has_no_answer() -> None:
    F = np.broadcast_to(np.eye(2), (3, 3, 2, 2))
    answer = ccstae_2023.map_strain(
        MODEL.counts(F, 1e4, vacuum=np.ones((3, 3), bool)), SMALL, "cpu"
    )
    assert np.isnan(answer.F).all()


def test_pools_that_leave_nothing_are_refused() -> None:
    settings = Ccstae2023Settings(pools=(16, 16))
    with pytest.raises(InputError, match="divide by 256; expected at most the pattern's side"):
        ccstae_2023.map_strain(MODEL.counts(random_deformations((2, 2)), 1e5), settings, "cpu")


def test_pictures_keep_their_middle_on_the_detector() -> None:
    pictures = torch.zeros(2, 120, 120)
    pictures[:, 60, 60] = 1
    for shape in ((128, 128), (96, 96), (127, 130)):
        placed = ccstae_2023.on_detector(pictures, shape, (shape[1] // 2, shape[0] // 2))
        assert placed.shape == (2, *shape)
        assert placed[0].nonzero().tolist() == [[shape[0] // 2, shape[1] // 2]]
        placed = ccstae_2023.on_detector(pictures, shape, (71.2, 52.0))
        assert placed.shape == (2, *shape)
        assert placed[0].nonzero().tolist() == [[52, 71]]


def test_side_of_the_dictionary() -> None:
    assert train.picture_side(Ccstae2023Settings()) == 200
    assert train.picture_side(SMALL) == 120
