"""Verdicts follow from the numbers by the rules that are stated; published errors stand beside a
run's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ccstae.config.run import Config, parse
from ccstae.evaluation import published as measures
from ccstae.io.scores import COLUMNS
from ccstae.reporting import claims, published
from ccstae.reporting.table import BOUND

ARRAY = {"path": "config/labels/exx.npy", "sha256": "0" * 64}
CLEAN, W0, W50, W70, DOSE = (0, math.inf), (0, 1e5), (0.5, 1e5), (0.7, 1e5), (0, 1e4)
LEVELS = (CLEAN, W0, W50, W70, DOSE)
# Strain errors in 1e-4 at the levels above.
ERRORS = {
    "zero": (50, 50, 50, 50, 50),
    "com": (2, 9, 25, 60, 30),
    "template": (1, 8, 20, 40, 28),
    "ccstae-2023": (3, 12, 25, 45, 40),
    "ccstae": (0.5, 6, 14, 30, 20),
}
BOUNDS = (0, 6, 17, 30, 19)


def config(
    methods: tuple[str, ...] = tuple(ERRORS),
    levels: bool = True,
    more: dict[str, Any] | None = None,
) -> Config:
    noise = {"b": {"background": [0, 0.5, 0.7], "electrons": 1e5}, "d": {"electrons": 1e4}}
    if levels:
        noise = {"clean": {"electrons": math.inf}, **noise}
    return parse(
        {
            "name": "made",
            "scenes": {
                "truth": {
                    "kind": "labelled",
                    "materials": ["WS2"],
                    "published_errors": "config/published/cc-st-ae.csv",
                    **dict.fromkeys(("exx", "eyy", "exy", "rotation"), ARRAY),
                }
            },
            "noise": noise,
            "seeds": {"test": [1], "tune": []},
            "methods": {**dict.fromkeys(methods), **(more or {})},
        }
    )


def measured(errors: dict[str, tuple[float, ...]] = ERRORS) -> pd.DataFrame:
    """What a run with these errors measures; rotations err by as many 1e-4 rad."""
    rows = []
    for method, of_levels in errors.items():
        for level, error, bound in zip(LEVELS, of_levels, BOUNDS, strict=True):
            for positions in measures.SUBSETS:
                for quantity in ("exx", "eyy", "exy", "theta", measures.AS_PUBLISHED):
                    # The mean over the strains is the error told.
                    factor = {"exx": 1.5, "exy": 0.5}.get(quantity, 1.0)
                    values = {"mae": error * factor, "bound": bound, "bias": -1.0}
                    if quantity in published.STRAINS:
                        values |= {"slope": 1e4, "unshrunk_mae": error * factor}
                    rows += [
                        ("truth", method, *level, 1, positions, quantity, metric, 1e-4 * value)
                        for metric, value in values.items()
                    ]
    return pd.DataFrame(rows, columns=list(measures.COLUMNS))


def structures(turned: float, found: float, ripple: float, apart: float) -> pd.DataFrame:
    rows = []
    for scene, error in (("unturned", 1.0), ("turned", turned)):
        for component in ("exx", "eyy", "exy", "theta"):
            rows += [(scene, "interior", component, "rmse", error)]
            rows += [(scene, "interior", component, "limit", 1.0)]
    rows += [
        ("dislocations", "all", "all", "cores_found", found),
        ("ripple", "all", "exx", "gain", ripple),
        ("flake", "all", "label", "sample_accuracy", apart),
    ]
    return pd.DataFrame(
        [
            (scene, method, 0.25, 1e5, 1, *row)
            for method in ("ccstae", "template")
            for scene, *row in rows
        ],
        columns=list(COLUMNS),
    )


def test_verdicts() -> None:
    found = claims.every(config(), measured(), structures(1.05, 1.0, 0.95, 0.97))
    by_place = dict(enumerate(found, 1))
    # 1: the published .0013 is below .00137, ours below the template's; the model of 2023 is not.
    assert by_place[1].tests == {
        "published against its rival": True,
        "ccstae-2023 against its rival": False,
        "ccstae against its rival": True,
    }
    assert by_place[1].verdict == "holds in part"
    assert by_place[1].cells["strongest rival"] == "template 1.00"
    assert by_place[1].cells["published"] == "13.0"
    # What simulation may leave is as good as less.
    floor = measured(ERRORS | {"ccstae": (0.29, 6, 14, 30, 20), "template": (0.1, 8, 20, 40, 28)})
    assert claims.every(config(), floor)[0].tests["ccstae against its rival"]
    # 2: CoM fails at w 0.70 alone, where 30 / 40 is a significant gain and 45 / 40 none.
    assert by_place[2].tests == {
        "published against its rival": True,
        "ccstae-2023 against its rival": False,
        "ccstae against its rival": True,
        "CoM fails": True,
        "ccstae: rotation against its rival": True,
    }
    assert "at w 0.70, 1e5 e" in by_place[2].measured
    # 3
    assert by_place[3].verdict == "holds"
    assert by_place[3].cells["ccstae"] == "1.05"
    # 4: at the highest background, and at the lowest dose.
    assert by_place[4].tests["ccstae against its rival, w 0.00, 1e4 e"]
    assert not by_place[4].tests["ccstae-2023 against its rival, w 0.00, 1e4 e"]
    assert by_place[4].numbers["ccstae"] == pytest.approx(30e-4)
    # 5
    assert by_place[5].verdict == "holds"
    assert by_place[5].cells["ccstae"] == "100 %, 95 %, 97 %"
    assert by_place[5].cells["strongest rival"] == "template, 100 %, 95 %, 97 %"


def test_what_sees_neighbours_is_no_rival_of_what_does_not() -> None:
    blur = {"kind": "gauss", "width_steps": 1}
    blurs = {f"{name}-gauss": {"method": name, "smooth": blur} for name in ("template", "ccstae")}
    errors = measured(ERRORS | dict.fromkeys(blurs, (0.1, 0.1, 0.1, 0.1, 0.1)))
    turned = structures(1.05, 1.0, 0.95, 0.97)
    with_blurs = claims.every(config(more=blurs), errors, turned)
    without = claims.every(config(), measured(), turned)
    assert [one.cells for one in with_blurs] == [one.cells for one in without]
    assert [one.tests for one in with_blurs] == [one.tests for one in without]


def test_verdicts_turn_with_the_numbers() -> None:
    worse = ERRORS | {"ccstae": (2, 9, 25, 60, 40)}
    found = claims.every(config(), measured(worse), structures(1.2, 0.5, 0.5, 0.97))
    assert not found[0].tests["ccstae against its rival"]
    assert not found[1].tests["ccstae against its rival"]
    assert [found[2].verdict, found[4].verdict] == ["does not hold", "holds in part"]
    without = {name: errors for name, errors in ERRORS.items() if name != "ccstae-2023"}
    methods = tuple(without)
    first = claims.every(config(methods), measured(without))[0]
    assert first.verdict == "holds"


def test_what_has_no_numbers_cannot_be_told() -> None:
    made = claims.table(config(), measured())
    assert made is not None
    assert [row[1] for row in made.rows][2::2] == ["cannot be told here"] * 2
    assert "make CONFIG=config/structures.yaml" in made.rows[2][7]
    noisy = measured()
    noisy = noisy[np.isfinite(noisy["electrons"])]
    assert claims.every(config(levels=False), noisy)[0].verdict == "cannot be told here"
    assert claims.table(config(), measures.NONE) is None


def test_published_errors_stand_at_the_levels_they_are_of() -> None:
    frame = published.beside(config(), measured())
    values = frame[frame["positions"] == "all"].set_index(
        ["method", "quantity", "background", "electrons"]
    )["value"]
    assert values["published CC-ST-AE", "exx", 0.5, 1e5] == 0.0018
    assert values["published py4DSTEM", "rotation as published (deg)", 0.7, 1e5] == 1.186
    # Their w = 0 has no noise, and stands beside both.
    assert values["published CC-ST-AE", "eyy", 0, math.inf] == 0.0017
    assert values["published CC-ST-AE", "eyy", 0, 1e5] == 0.0017
    assert ("published CC-ST-AE", "eyy", 0, 1e4) not in values.index
    assert values["published CC-ST-AE", "strain", 0.7, 1e5] == pytest.approx(0.0023)
    assert values["ccstae", "strain", 0.7, 1e5] == pytest.approx(0.0030)
    assert values["ccstae", "rotation (deg)", 0.7, 1e5] == pytest.approx(np.rad2deg(0.0030))
    assert values[BOUND, "strain", 0.7, 1e5] == pytest.approx(0.0030)


def test_tables_beside_the_published_errors() -> None:
    made = {table.name: table for table in published.tables(config(), measured())}
    assert list(made) == ["published", "published_positions", "published_prior"]
    rows = {tuple(row[:2]): row[2:] for row in made["published"].rows}
    head = made["published"].head
    assert head == ["quantity", "level", "published py4DSTEM", "published CC-ST-AE", BOUND, *ERRORS]
    assert rows["exx", "w 0.70, 1e5 e"][:3] == ["45.0", "22.0", "30.0"]
    assert rows["exx", "w 0.00, 1e4 e"][:2] == ["-", "-"]
    assert rows["rotation as published (deg)", "w 0.50, 1e5 e"][1] == "0.876"
    caption = made["published"].caption
    assert "At or below the bound in exx: published CC-ST-AE at w = 0.7." in caption
    prior = {tuple(row[:2]): row[2:] for row in made["published_prior"].rows}
    assert prior["w 0.50, 1e5 e", "ccstae"] == ["17.0", "14.0", "14.0", "14.0", "1.00", "1.00", "0"]
    assert prior["w 0.50, 1e5 e", "template"][-1] == "-"
