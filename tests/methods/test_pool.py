"""Pooling of neighbours, on fields made by hand and drawn."""

import numpy as np
import pytest

from ccstae import geometry
from ccstae.methods.ccstae_pooled import operators, pool, tiles
from ccstae.methods.ccstae_pooled.branch import links, one_branch
from ccstae.methods.ccstae_pooled.choice import foretold
from ccstae.methods.ccstae_pooled.field import Data, Field, Fit
from ccstae.methods.ccstae_pooled.law import Moments, Term, kronecker_step, transported

SHAPE = (20, 24)
EVERYWHERE = np.ones(SHAPE, bool)


def field(step=0.04, slope=1e-3):
    """Lattices near the unit matrix, (Ry, Rx, 4): a ramp along y in one component, a jump along x
    in another.
    """
    M = np.tile(np.eye(2).ravel(), (*SHAPE, 1))
    M[..., 0] -= step * (np.arange(SHAPE[1]) >= 12)
    M[..., 3] += slope * np.arange(SHAPE[0])[:, None]
    return M


def measured(M, deviation=0.008, seed=0):
    """The field with noise of correlated components, and its information."""
    root = deviation * np.array(
        [[1.0, 0, 0, 0], [0.3, 0.8, 0, 0], [0, -0.2, 0.7, 0], [0.4, 0, 0.1, 1.0]]
    )
    noise = np.random.default_rng(seed).standard_normal(M.shape) @ root.T
    return M + noise, np.broadcast_to(np.linalg.inv(root @ root.T), (*M.shape, 4))


def waves(shape, scan, seed=0, size=0.01, lengths=(9.0, 25.0)):
    """Lattices (Ry, Rx, 4) of a displacement made of waves: X = x - u, M_jk = dX_k / dx_j. The
    scan's steps are the columns of `scan`, in the detector's axes.
    """
    rng = np.random.default_rng(seed)
    column, row = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    x = np.stack([column, row], -1) @ scan.T
    M = np.tile(np.eye(2), (*shape, 1, 1))
    for _ in range(6):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        q = 2 * np.pi / rng.uniform(*lengths) * np.array([np.cos(angle), np.sin(angle)])
        gradient = size * np.cos(x @ q + phase)[..., None, None] * rng.standard_normal(2)
        M -= q[:, None] / np.linalg.norm(q) * gradient
    return M.reshape(*shape, 4)


def pooled(M, deviation, seed=0, held=None):
    values, information = measured(M, deviation, seed)
    held = np.ones(M.shape[:2], bool) if held is None else held
    return values, pool.pool(values[held], information[held], held, 6, 0)


def share(found, truth, values):
    """Root mean square error over that of single patterns."""
    return np.sqrt(np.mean((found - truth) ** 2) / np.mean((values - truth) ** 2))


# ---------------------------------------------------------------- differences


def test_closures_of_a_gradient_vanish_however_the_scan_lies():
    """Box differences of quadratic fields are exact: potentials here are cubic polynomials."""
    rng = np.random.default_rng(0)
    for scan in (
        np.eye(2),
        geometry.scan_steps(0.7),
        geometry.scan_steps(2.0, ratio=1.3, mirrored=True),
    ):
        column, row = np.meshgrid(np.arange(7.0), np.arange(5.0))
        x, y = np.moveaxis(np.stack([column, row], -1) @ scan.T, -1, 0)
        a, b = rng.standard_normal((2, 2, 1, 1))
        # X_k = a_k x^3 + b_k x^2 y
        along_x, along_y = 3 * a * x**2 + 2 * b * x * y, b * x**2
        M = np.stack([along_x[0], along_x[1], along_y[0], along_y[1]], -1).reshape(-1, 4)
        held = np.ones((5, 7), bool)
        assert np.abs(operators.closures(held, scan).apply(M)).max() < 1e-11
        wrong = geometry.scan_steps(1.2)
        assert np.abs(operators.closures(held, wrong).apply(M)).max() > 1


def test_the_closure_has_the_sign_of_the_curl():
    """M_10 grows along x by 1 a step, so that D_x M_1k is 1, for k = 0; M_01 along y: -1."""
    column, row = np.meshgrid(np.arange(3.0), np.arange(3.0))
    zero = np.zeros_like(column)
    M = np.stack([zero, row, column, zero], -1).reshape(-1, 4)
    found = operators.closures(np.ones((3, 3), bool), np.eye(2)).apply(M)
    np.testing.assert_allclose(found, np.tile([1.0, -1.0], (4, 1)), atol=1e-12)


def test_second_differences_leave_linear_fields_free_and_measure_curvature():
    column, row = np.meshgrid(np.arange(6.0), np.arange(5.0))
    held = np.ones((5, 6), bool)
    held[2, 3] = False
    second = operators.second_differences(held)
    linear = np.stack([column, row, column - 2 * row, 1 + 0 * row], -1)[held]
    assert np.abs(second.apply(linear)).max() < 1e-12
    curved = np.stack([column**2, row**2, column * row, 0 * row], -1)[held]
    found = np.abs(second.apply(curved))
    np.testing.assert_allclose(np.unique(found[:, :2].round(9)), [0, 2])
    np.testing.assert_allclose(np.unique(found[:, 2].round(9)), [0, np.sqrt(2).round(9)])


def test_adjoint_and_precision_are_those_of_the_operator():
    rng = np.random.default_rng(1)
    held = rng.random((5, 6)) < 0.8
    operator = operators.closures(held, geometry.scan_steps(0.4))
    x, y = rng.standard_normal((held.sum(), 4)), rng.standard_normal((len(operator.place), 2))
    assert np.isclose((operator.apply(x) * y).sum(), (x * operator.adjoint(y)).sum())
    weight, stiffness = rng.random(len(y)), np.array([[2.0, 0.5], [0.5, 1.0]])
    d = operator.apply(x)
    expected = (weight * np.einsum("ra,ab,rb->r", d, stiffness, d)).sum()
    assert np.isclose(x.ravel() @ operator.precision(weight, stiffness) @ x.ravel(), expected)


def test_links_join_neighbours_only():
    held = np.array([[True, True, False], [False, True, True]])
    i, j = links(held)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 3)]


# ---------------------------------------------------------------- learning


def test_the_evidence_step_makes_up_for_what_was_found():
    rng = np.random.default_rng(2)
    scale, resolved, fitted = (root @ root.T for root in rng.standard_normal((3, 4, 4)))
    G_squared = transported(np.eye(4), resolved, fitted)  # G G, with G resolved G = fitted
    values, axes = np.linalg.eigh(G_squared)
    G = (axes * np.sqrt(values)) @ axes.T
    np.testing.assert_allclose(G @ resolved @ G, fitted, atol=1e-9)
    # A right Kronecker product stays as it is.
    D, C = (root @ root.T for root in rng.standard_normal((2, 2, 2)))
    scale = np.kron(D, C)
    np.testing.assert_allclose(kronecker_step(scale, scale, scale), scale, rtol=1e-9)
    np.testing.assert_allclose(kronecker_step(scale, scale, 4 * scale), 4 * scale, rtol=1e-9)


def test_the_evidence_recovers_the_scale_of_a_drawn_field():
    """First differences alone: the field is a random walk, its differences known exactly."""
    rng = np.random.default_rng(3)
    n = 4000
    D, C = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[2.0, -0.6], [-0.6, 1.0]])
    S = 1e-4 * np.kron(D, C)
    d = rng.standard_normal((n - 1, 4)) @ np.linalg.cholesky(S).T
    truth = np.concatenate([np.zeros((1, 4)), d.cumsum(0)])
    noise = 0.01 * np.eye(4)
    held = np.ones((1, n), bool)
    data = Data(
        truth + rng.standard_normal((n, 4)) @ noise,
        np.tile(np.linalg.inv(noise @ noise), (n, 1, 1)),
        noise @ noise,
    )
    term = Term(operators.first_differences(held), 1e-5 * np.eye(4), freedom=1e6)
    fit = Fit(data, [term], tiles.strips(held), rng)
    for _ in range(12):
        fit.round()
        term.local[:] = 1  # the walk is everywhere alike
    ratio = np.linalg.eigvals(np.linalg.solve(S, term.scale)).real
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()


def test_the_local_scale_tells_quiet_areas_from_busy_ones():
    """Of 20 x 40 differences the right half is ten times as large."""
    rng = np.random.default_rng(4)
    held = np.ones((20, 40), bool)
    operator = operators.first_differences(held)
    busy = operator.place[:, 1] > 20
    mean = rng.standard_normal((len(busy), 4)) * np.where(busy, 10, 1)[:, None]
    prior = rng.standard_normal((len(busy), 4, 8))
    term = Term(operator, np.eye(4), freedom=1e6, learned=False)
    for _ in range(10):
        term.learn(Moments(mean, 0 * prior, prior / np.sqrt(term.weight)[:, None, None]), np.eye(4))
    assert np.median(term.local[~busy]) > 20 * np.median(term.local[busy])
    assert np.isclose(np.log(term.local).mean(), 0)


def test_foretold_is_the_law_of_a_pattern_given_the_others():
    """Against the definition, on nine positions whose joint law is known."""
    rng = np.random.default_rng(5)
    n = 9
    root = rng.standard_normal((4 * n, 4 * n))
    prior = root @ root.T / 50
    information = np.stack([r @ r.T + np.eye(4) for r in rng.standard_normal((n, 4, 4))])
    M = rng.standard_normal((n, 4))
    noise = np.zeros((4 * n, 4 * n))
    for k in range(n):
        noise[4 * k : 4 * k + 4, 4 * k : 4 * k + 4] = np.linalg.inv(information[k])
    total = np.linalg.inv(np.linalg.inv(prior) + np.linalg.inv(noise))
    mean = (total @ np.linalg.inv(noise) @ M.ravel()).reshape(n, 4)
    blocks = np.stack([total[4 * k : 4 * k + 4, 4 * k : 4 * k + 4] for k in range(n)])
    found = foretold(Data(M, information, np.eye(4)), Field(mean, blocks))
    joint = prior + noise
    for k in range(n):
        mine = np.arange(4 * k, 4 * k + 4)
        rest = np.setdiff1d(np.arange(4 * n), mine)
        gain = joint[np.ix_(mine, rest)] @ np.linalg.inv(joint[np.ix_(rest, rest)])
        residual = M[k] - gain @ M.ravel()[rest]
        variance = joint[np.ix_(mine, mine)] - gain @ joint[np.ix_(rest, mine)]
        expected = -0.5 * residual @ np.linalg.solve(variance, residual)
        expected -= 0.5 * np.linalg.slogdet(variance @ information[k])[1]
        assert np.isclose(found[k], expected, rtol=1e-6)


# ---------------------------------------------------------------- whole maps


def test_a_ramp_is_smoothed_a_jump_stays_and_the_error_is_known():
    truth = field()
    values, found = pooled(truth, 0.008)
    error = found.M.reshape(truth.shape) - truth
    assert np.sqrt((error**2).mean((0, 1)) / ((values - truth) ** 2).mean((0, 1))).max() < 0.5
    deviation = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2)).reshape(truth.shape)
    assert 0.9 < (np.abs(error) < 1.96 * deviation).mean() < 1.0
    # The jump of 5 deviations between two columns is not spread over more than one more.
    profile = found.M.reshape(truth.shape)[..., 0].mean(0) - 1
    assert profile[10] > -0.008
    assert profile[13] < -0.032


def test_a_linear_field_stays_as_it_is():
    """Its second differences and closures vanish, so neither law nor noise moves it."""
    column, row = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    along_x, along_y = np.array([1.0, 0.5, 0.3, -2.0]), np.array([0.3, -2.0, 4.0, 1.0])
    truth = np.eye(2).ravel() + 1e-3 * (column[..., None] * along_x + row[..., None] * along_y)
    information = np.tile(1e6 * np.eye(4), (*SHAPE, 1, 1))[EVERYWHERE]
    data = Data(truth[EVERYWHERE], information, 1e-6 * np.eye(4))
    terms = [
        Term(operators.second_differences(EVERYWHERE), 1e-6 * np.eye(4), 2.0),
        Term(operators.closures(EVERYWHERE, np.eye(2)), 1e-9 * np.eye(2), 1.0, learned=False),
    ]
    fit = Fit(data, terms, tiles.strips(EVERYWHERE), np.random.default_rng(0))
    for _ in range(5):
        fit.round()
    assert np.abs(fit.field().mean - data.M).max() < 1e-7


def test_precise_patterns_are_left_alone():
    truth = field()
    values, found = pooled(truth, 1e-5)
    assert np.abs(found.M - values.reshape(-1, 4)).max() < 5e-5


def test_a_wrong_pattern_does_not_pull_its_neighbours():
    truth = field(step=0, slope=0)
    values, information = measured(truth, deviation=0.003)
    before = pool.pool(values[EVERYWHERE], information[EVERYWHERE], EVERYWHERE, 6, 0)
    values[10, 12] += 0.1
    after = pool.pool(values[EVERYWHERE], information[EVERYWHERE], EVERYWHERE, 6, 0)
    near = (after.M - before.M).reshape(truth.shape)[10, 13]
    assert np.abs(near).max() < 0.003


@pytest.mark.parametrize("seed", [0, 1])
def test_waves_are_pooled_with_a_known_error_and_shown_in_full(seed):
    truth = waves((24, 24), np.eye(2), seed)
    values, found = pooled(truth, 0.006, seed)
    M = found.M.reshape(truth.shape)
    assert share(M, truth, values) < 0.4
    deviation = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2)).reshape(truth.shape)
    assert 0.92 < (np.abs(M - truth) < 1.96 * deviation).mean() < 0.99
    varying = truth - truth.mean((0, 1))
    assert 0.95 < (varying * M).sum() / (varying**2).sum() < 1.05


@pytest.mark.parametrize(("turn_deg", "mirrored"), [(0, False), (40, False), (115, True)])
def test_the_scan_s_turn_is_found_and_closures_help_as_much(turn_deg, mirrored):
    scan = geometry.scan_steps(np.deg2rad(turn_deg), mirrored=mirrored)
    truth = waves((24, 24), scan)
    values, found = pooled(truth, 0.006)
    said = found.found["scan_against_detector"]
    assert said["mirrored"] is mirrored
    assert abs(geometry.wrap(np.deg2rad(said["rotation_deg"] - turn_deg), 2)) < np.deg2rad(3)
    assert share(found.M.reshape(truth.shape), truth, values) < 0.4


def test_a_field_along_one_direction_does_not_tell_how_the_scan_lies():
    truth = np.tile(np.eye(2).ravel(), (*SHAPE, 1))
    truth[..., 0] += 0.02 * np.sin(np.arange(SHAPE[1]) / 3)
    _, found = pooled(truth, 0.005)
    assert found.found["scan_against_detector"] == {}
    assert "without the closures" in found.found["closures"]


def test_grains_stay_sharp():
    """Four grains: no difference inside, jumps of 60 deviations between them."""
    truth = np.tile(np.eye(2).ravel(), (*SHAPE, 1))
    for grain, (rows, columns) in enumerate(
        [(np.s_[:9], np.s_[:14]), (np.s_[9:], np.s_[:10]), (np.s_[:9], np.s_[14:])]
    ):
        truth[rows, columns] += 0.1 * np.random.default_rng(grain).standard_normal(4)
    values, found = pooled(truth, 0.003)
    error = found.M.reshape(truth.shape) - truth
    assert share(found.M.reshape(truth.shape), truth, values) < 0.5
    edge = error[8:10].reshape(-1, 4)  # both sides of the boundary along x
    assert np.sqrt((edge**2).mean() / ((values - truth)[8:10] ** 2).mean()) < 0.9


def test_lattices_are_brought_to_one_branch_of_their_symmetry():
    """Rotations about 30 degrees, half the period: single patterns answer on both sides."""
    rng = np.random.default_rng(6)
    theta = np.deg2rad(30) + 0.01 * rng.standard_normal(SHAPE)
    F = geometry.to_branch(geometry.deformation(0.01, 0, 0.002, theta), np.eye(2), 6)
    M = geometry.inverse_transpose(F)[EVERYWHERE].reshape(-1, 4)
    assert np.ptp(geometry.polar(F)[1]) > 1
    joined = one_branch(M, EVERYWHERE, 6).reshape(*SHAPE, 2, 2)
    found = geometry.components(geometry.inverse_transpose(joined))
    np.testing.assert_allclose(found[..., :3], np.tile([0.01, 0, 0.002], (*SHAPE, 1)), atol=1e-9)
    assert np.ptp(found[..., 3]) < 0.1
    turn = geometry.wrap(found[..., 3] - theta, 6)
    np.testing.assert_allclose(turn, 0, atol=1e-9)


def test_an_enclosed_position_without_an_answer_gets_one_and_vacuum_does_not():
    truth, held = waves(SHAPE, np.eye(2)), EVERYWHERE.copy()
    held[10, 12] = held[10, 13] = False
    held[:, 20:] = False
    _, found = pooled(truth, 0.004, held=held)
    filled = found.answered & ~held
    assert np.argwhere(filled).tolist() == [[10, 12], [10, 13]]
    at = filled[found.answered]
    deviation = np.sqrt(np.diagonal(found.covariance[at], axis1=1, axis2=2))
    assert (np.abs(found.M[at] - truth[filled]) < 4 * deviation).all()
    assert (deviation < 0.02).all()


@pytest.mark.parametrize(
    "held", [np.eye(6, dtype=bool), np.ones((1, 1), bool), np.ones((1, 9), bool)]
)
def test_scans_with_few_or_no_neighbours_are_answered(held):
    n = int(held.sum())
    M = np.tile(np.eye(2).ravel(), (n, 1))
    found = pool.pool(M, np.tile(1e6 * np.eye(4), (n, 1, 1)), held, 6, 0)
    assert np.allclose(found.M[held[found.answered]], M, atol=1e-6)
    assert np.isfinite(found.covariance).all()


def test_strips_of_a_scan_say_what_the_whole_says(monkeypatch):
    truth = waves((28, 40), np.eye(2))
    values, whole = pooled(truth, 0.006)
    monkeypatch.setattr(tiles, "MAX_WIDTH", 20)
    _, parts = pooled(truth, 0.006)
    deviation = np.sqrt(np.diagonal(whole.covariance, axis1=1, axis2=2))
    assert np.sqrt(np.mean(((parts.M - whole.M) / deviation) ** 2)) < 0.1
    assert share(parts.M.reshape(truth.shape), truth, values) < 0.4


def test_the_mean_of_strips_is_that_of_the_whole_to_a_hundredth_of_a_deviation(monkeypatch):
    shape = (40, 44)
    values, information = measured(waves(shape, np.eye(2)), 0.006)
    held = np.ones(shape, bool)
    typical = np.linalg.inv(information[0, 0])
    data = Data(values[held], information[held], typical)
    closing = operators.closures(held, np.eye(2))
    terms = [
        Term(operators.second_differences(held), 0.1 * typical, 2.0),
        Term(closing, 1e-3 * np.trace(typical) * np.eye(2), 1.0, learned=False),
    ]
    fit = Fit(data, terms, tiles.strips(held), np.random.default_rng(0))
    for _ in range(3):
        fit.round()
    whole = fit.field()
    monkeypatch.setattr(tiles, "MAX_WIDTH", 20)
    parts = Fit(data, terms, tiles.strips(held), np.random.default_rng(0)).field()
    deviation = np.sqrt(np.diagonal(whole.covariance, axis1=1, axis2=2))
    assert np.sqrt(np.mean(((parts.mean - whole.mean) / deviation) ** 2)) < 0.01


def test_scales_of_a_part_serve_the_whole(monkeypatch):
    truth = waves((28, 40), np.eye(2))
    values, whole = pooled(truth, 0.006)
    monkeypatch.setattr(tiles, "SAMPLE", 600)
    monkeypatch.setattr(tiles, "_TILE", 14)
    _, taught = pooled(truth, 0.006)
    deviation = np.sqrt(np.diagonal(whole.covariance, axis1=1, axis2=2))
    assert np.sqrt(np.mean(((taught.M - whole.M) / deviation) ** 2)) < 0.3
    error = np.abs(taught.M.reshape(truth.shape) - truth)
    assert share(taught.M.reshape(truth.shape), truth, values) < 0.4
    stated = np.sqrt(np.diagonal(taught.covariance, axis1=1, axis2=2)).reshape(truth.shape)
    assert 0.92 < (error < 1.96 * stated).mean() < 0.99


def test_a_sample_of_a_scan_is_made_of_parts_apart(monkeypatch):
    monkeypatch.setattr(tiles, "SAMPLE", 500)
    monkeypatch.setattr(tiles, "_TILE", 10)
    held = np.random.default_rng(8).random((47, 60)) < 0.9
    held[:, :20] = False
    rows, alone = tiles.sample(held, np.random.default_rng(0))
    assert len(rows) == alone.sum() == len(set(rows.tolist()))
    assert 400 < len(rows) <= 500
    # neighbours in the sample are neighbours in the scan
    place = np.argwhere(held)[rows]
    i, j = links(alone)
    assert (np.abs(place[i] - place[j]).sum(1) == 1).all()


def test_strips_cover_a_scan_once(monkeypatch):
    monkeypatch.setattr(tiles, "MAX_WIDTH", 20)
    held = np.random.default_rng(7).random((50, 37)) < 0.9
    parts = tiles.strips(held)
    own = np.concatenate([part.positions[part.own] for part in parts])
    assert sorted(own.tolist()) == list(range(held.sum()))
    place = operators.second_differences(held).place
    assert (sum(part.owns(place).astype(int) for part in parts) == 1).all()
