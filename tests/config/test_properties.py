"""Laws that hold for any config, strain map and lattice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccstae import geometry
from ccstae.config import plain_yaml
from ccstae.config.levels import Level
from ccstae.config.run import Config, dump, parse
from ccstae.errors import InputError
from ccstae.evaluation.metrics import component_metrics
from ccstae.pipeline import stages
from ccstae.simulation import noise
from ccstae.simulation.background import background

settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("suite")

ids = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True)
strain = st.floats(-0.1, 0.1)
angle = st.floats(-1.5, 1.5)
deformations = st.builds(geometry.deformation, strain, strain, strain, angle)
symmetries = st.sampled_from((2, 4, 6))


@st.composite
def lattices(draw: st.DrawFn) -> np.ndarray:
    """Lattice vectors as columns: lengths of 2 to 10 Angstrom, 50 to 130 degrees apart, turned
    anyhow.
    """
    a, b = draw(st.floats(2, 10)), draw(st.floats(2, 10))
    between, turn = np.deg2rad(draw(st.floats(50, 130))), draw(angle)
    return geometry.rotation_matrix(turn) @ np.array(
        [[a, b * np.cos(between)], [0, b * np.sin(between)]]
    )


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    materials = draw(st.lists(ids, min_size=2, max_size=4, unique=True))
    material = st.fixed_dictionaries(
        {"prototype": st.just("mx2-2h"), "species": st.just(["W", "S"]), "a_A": st.floats(2.5, 6)},
        optional={
            "thickness_A": st.floats(0, 5),
            "source": st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))),
        },
    )
    scene = st.fixed_dictionaries(
        {
            "kind": st.just("heterostructure"),
            "materials": st.lists(st.sampled_from(materials), min_size=2, max_size=2),
        },
        optional={
            "scan": st.fixed_dictionaries(
                {
                    "shape": st.lists(st.integers(2, 99), min_size=2, max_size=2),
                    "step_A": st.floats(1, 99),
                }
            )
        },
    )
    shares = st.integers(0, 99).map(lambda n: n / 100)
    dose = st.one_of(st.sampled_from([100, 1e3, 2.5e4, 1e5]), st.integers(1, 10**6))
    level = st.fixed_dictionaries(
        {"electrons": st.one_of(dose, st.lists(dose, min_size=1, max_size=3))},
        optional={"background": shares},
    )
    seeds = draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True))
    methods = st.sampled_from(["zero", "com", "template", "ccstae"])
    return {
        "name": draw(ids),
        "device": draw(st.sampled_from(["auto", "cpu", "gpu"])),
        "materials": {name: draw(material) for name in materials},
        "scenes": draw(st.dictionaries(ids, scene, min_size=1, max_size=2)),
        "noise": draw(st.dictionaries(ids, level, min_size=1, max_size=3))
        | {"clean": {"electrons": math.inf}},
        "seeds": {"test": seeds[:2], "tune": seeds[2:]},
        "methods": draw(
            st.dictionaries(
                ids, st.builds(lambda m: {"method": m}, methods), min_size=1, max_size=4
            )
        ),
    }


@given(configs())
def test_a_config_filled_in_says_the_same_and_stays_so(data: dict[str, Any]) -> None:
    made = parse(data)
    text = dump(made)
    again = parse(plain_yaml.read_yaml(text, "it"))
    assert dump(again) == text
    assert again.levels == made.levels
    assert len({level.name for level in made.levels}) == len(made.levels)


@given(configs())
def test_a_jobs_config_is_one_line_that_reads_back(data: dict[str, Any]) -> None:
    made = parse(data)
    scene, level, method = next(iter(made.scenes)), made.levels[-1], next(iter(made.methods))
    narrowed = stages.narrow(
        made, "map", scene=scene, level=level.name, seed=made.seeds.test[0], method=method
    )
    line = stages.one_line(narrowed)
    assert "\n" not in line
    again = parse(yaml.safe_load(line))
    assert stages.one_line(again) == line
    assert again.level(level.name) == level


@given(configs(), st.data())
def test_a_misspelt_key_is_named_with_its_place(data: dict[str, Any], draw: st.DataObject) -> None:
    place, name = draw.draw(
        st.sampled_from(
            [
                (data["seeds"], "seeds.tset"),
                (data, "methds"),
                (data["noise"]["clean"], "noise.clean.electron"),
            ]
        )
    )
    place[name.split(".")[-1]] = 1
    with pytest.raises(InputError, match=f"{name}: unknown key .*did you mean"):
        parse(data)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("inherit"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Config.model_fields, "extends", "x"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(plain)
def test_anything_else_is_refused_in_one_line(data: Any) -> None:
    with pytest.raises(InputError) as refused:
        parse(data, "it")
    assert str(refused.value).startswith("it: ")


@given(st.text(max_size=200))
def test_any_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="it:"):
        parse(plain_yaml.read_yaml(text, "it"), "it")


@given(deformations)
def test_strain_and_rotation_give_the_deformation_back(F: np.ndarray) -> None:
    parts = geometry.components(F)
    assert np.allclose(geometry.deformation(*parts), F, atol=1e-12)
    V, theta = geometry.polar(F)
    assert np.allclose(V, V.T)
    assert np.allclose(V @ geometry.rotation_matrix(theta), F, atol=1e-12)


@given(deformations, st.floats(1e-7, 1e-5), hnp.arrays(float, (2, 2), elements=st.floats(-1, 1)))
def test_the_jacobian_of_the_components_is_their_slope(
    F: np.ndarray, step: float, way: np.ndarray
) -> None:
    change = (geometry.components(F + step * way) - geometry.components(F - step * way)) / (
        2 * step
    )
    assert np.allclose(geometry.components_jacobian(F) @ way.ravel(), change, atol=1e-6)


@given(lattices(), deformations)
def test_a_deformed_lattice_tells_its_deformation(lattice: np.ndarray, F: np.ndarray) -> None:
    G0, G = geometry.reciprocal(lattice), geometry.reciprocal(F @ lattice)
    assert np.allclose(G0.T @ lattice, np.eye(2), atol=1e-12)
    assert np.allclose(G, geometry.inverse_transpose(F) @ G0, atol=1e-12)
    assert np.allclose(geometry.deformation_from_reciprocal(G, G0), F, atol=1e-10)


@given(lattices(), st.floats(0.1, 1.5))
def test_nodes_are_all_those_within_the_radius(lattice: np.ndarray, radius: float) -> None:
    G = geometry.reciprocal(lattice)
    hk = geometry.lattice_nodes(G, radius)
    lengths = np.linalg.norm(hk @ G.T, axis=1)
    assert (lengths <= radius).all()
    assert (np.diff(np.round(lengths, 6)) >= 0).all()
    assert {tuple(-node) for node in hk} == {tuple(node) for node in hk}
    assert tuple(hk[0]) == (0, 0)
    # The area of the disk over that of a cell, within what its rim can hold.
    cells = math.pi * radius**2 * np.linalg.det(lattice)
    rim = 2 * math.pi * radius * np.linalg.norm(G, axis=0).max() * abs(np.linalg.det(lattice))
    inside = max(np.abs(hk).max(initial=0), 0) < 12
    assert not inside or abs(len(hk) - cells) <= 2 * rim + 4


@given(st.floats(-20, 20), symmetries)
def test_wrapped_angles_lie_in_one_period_and_differ_by_whole_ones(
    value: float, symmetry: int
) -> None:
    wrapped, period = float(geometry.wrap(value, symmetry)), 2 * math.pi / symmetry
    assert -period / 2 - 1e-12 <= wrapped < period / 2 + 1e-12
    turns = (value - wrapped) / period
    assert turns == pytest.approx(round(turns), abs=1e-9)


maps = hnp.arrays(float, (3, 4, 4), elements=st.floats(-0.05, 0.05)).map(
    lambda parts: geometry.deformation(*np.moveaxis(parts, -1, 0))
)


@given(maps, deformations, st.integers(0, 5), symmetries)
def test_a_map_in_another_gauge_is_the_same_map(
    F: np.ndarray, frame: np.ndarray, turns: int, symmetry: int
) -> None:
    """A common reference frame and the lattice's own turns drop out where one position is the
    reference.
    """
    reference = np.zeros(F.shape[:2], bool)
    reference[0, 0] = True
    own = F @ frame @ geometry.rotation_matrix(turns * 2 * math.pi / symmetry)
    there = geometry.regauge(geometry.to_branch(own, F @ frame, symmetry), reference)
    assert np.allclose(there, geometry.regauge(F, reference), atol=1e-9)


errors = hnp.arrays(float, st.integers(3, 40), elements=st.floats(-1, 1, allow_subnormal=False))


@given(errors, st.floats(1e-4, 1), st.floats(0.1, 10))
def test_laws_of_the_metrics(error: np.ndarray, limit: float, scale: float) -> None:
    found = component_metrics(error, np.full(error.shape, limit), None)
    tiny = 1e-9
    assert abs(found["bias"]) <= found["mae"] + tiny <= found["rmse"] + 2 * tiny
    assert found["p95"] <= np.abs(error).max() + tiny
    assert found["rmse_over_limit"] == pytest.approx(found["rmse"] / limit)
    assert found["limit_ratio"] == pytest.approx(found["robust_std"] / limit, rel=1e-6, abs=1e-9)
    larger = component_metrics(scale * error, np.full(error.shape, limit), None)
    for name in ("bias", "mae", "rmse", "robust_std", "p95"):
        assert larger[name] == pytest.approx(scale * found[name], rel=1e-6, abs=1e-9)


patterns = hnp.arrays(np.float32, (8, 8), elements=st.floats(0, 1, width=32)).filter(
    lambda p: p.sum() > 0.01
)


@given(patterns, st.floats(0, 0.99), st.floats(1, 1e6))
def test_expected_counts_sum_to_the_dose_and_are_linear_in_the_background(
    pattern: np.ndarray, share: float, dose: float
) -> None:
    level = Level(background=share, electrons=dose)
    expected = noise.expectation(pattern, level)
    assert expected.sum() == pytest.approx(dose, rel=1e-6)
    clean, flat = (
        noise.expectation(pattern, Level(background=0, electrons=dose)),
        dose * background((8, 8)),
    )
    assert np.allclose(expected, (1 - share) * clean + share * flat, rtol=1e-6, atol=1e-9)


@given(patterns, st.integers(0, 2**32), st.integers(0, 2**20))
def test_counts_are_those_of_their_seed_and_place_alone(
    pattern: np.ndarray, seed: int, index: int
) -> None:
    level = Level(background=0.2, electrons=1e5)
    first = noise.pattern_counts(pattern, level, seed, "scene", index)
    noise.pattern_counts(pattern, level, seed + 1, "scene", 0)
    assert np.array_equal(first, noise.pattern_counts(pattern.copy(), level, seed, "scene", index))
    others = [(seed + 1, "scene", index), (seed, "other", index), (seed, "scene", index + 1)]
    assert all(
        not np.array_equal(first, noise.pattern_counts(pattern, level, *other)) for other in others
    )
