"""Error beside resolution, from scores alone: families of widths, errors at equal resolution, and
what the figures draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_run import made_config

from ccstae.config.methods import Method
from ccstae.config.run import Config
from ccstae.geometry import COMPONENTS
from ccstae.io.scores import COLUMNS
from ccstae.reporting import resolution, tables
from ccstae.reporting.figures import resolution as figures
from ccstae.reporting.figures import style

# rmse over bound and wavelength at half of each method
MADE = {
    "zero": (9.0, None),
    "com": (1.5, 2.5),
    "com-gauss-0_5": (1.0, 3.0),
    "com-gauss-1": (0.5, 6.0),
    "com-gauss-2": (0.25, 12.0),
    "ccstae": (1.0, 2.5),
    "ccstae-2023": (0.6, 4.2426407),
    "ccstae-pooled": (0.2, 4.2426407),
}
LENGTHS = (2.5, 5.0, 20.0)


def config() -> Config:
    methods = {name: Method(command="x") for name in MADE} | {"zero": Method()}
    return made_config().model_copy(update={"methods": methods})


def scores() -> pd.DataFrame:
    rows = []
    for method, (error, half) in MADE.items():
        key = ("pair", method, 0.25, 1e5, 1)
        for component in COMPONENTS:
            for metric, value in (("rmse", error), ("bias", 0.1), ("limit", 1.0)):
                rows.append((*key, "interior", component, metric, value * 1e-4))
            rows.append((*key, "interior", component, "self_precision", 0.5e-4))
        if half is None:
            continue
        rows.append((*key, "all", "all", "mtf_half_wavelength", half))
        rows += [
            (*key, f"wave_{length:g}", "exx", "mtf", min(1, length / 2 / half))
            for length in LENGTHS
        ]
        rows.append((*key, "all", "exx", "width_10_90", half / 2))
        rows.append((*key, "all", "exx", "width_10_90_truth", 1.1))
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(not_run=False)


def by_key(table: tables.Table) -> dict[tuple[str, ...], dict[str, str]]:
    return {tuple(row[: table.keys]): dict(zip(table.head, row, strict=True)) for row in table.rows}


def test_families_are_entries_that_differ_in_the_number_at_their_end() -> None:
    found = resolution.families(MADE)
    assert list(found) == ["com-gauss"]
    assert found["com-gauss"].base == "com"
    assert list(found["com-gauss"].widths.values()) == ["0.5", "1", "2"]
    assert resolution.families(["a", "a-b", "a-b-c1", "a-b-c2"])["a-b-c"].base == "a-b"
    assert resolution.families(["x1", "x2"])["x"].base is None


def test_the_error_of_a_family_at_a_resolution() -> None:
    family = pd.DataFrame({resolution.RESOLUTION: [2.0, 2.0, 4.0], resolution.ERROR: [4, 1, 0.25]})
    found = resolution.error_at(family, np.array([1.9, 2.0, 3.0, 4.0, 4.1]))
    # Half way between 1 and 0.25, in their logarithm, is 0.5; beyond the widths nothing is known.
    assert found == pytest.approx([np.nan, 1, 0.5, 0.25, np.nan], nan_ok=True)


def test_the_table_of_errors_at_equal_resolution() -> None:
    metrics = scores()
    metrics = metrics[~metrics["metric"].str.startswith("width")]
    made = {table.name: table for table in resolution.make(config(), metrics)}
    table = made["equal_resolution"]
    rows = by_key(table)
    assert [key[1] for key in rows] == ["com", "ccstae", "ccstae-2023", "ccstae-pooled"]
    pooled = rows["w 0.25, 1e5 e", "ccstae-pooled"]
    assert (pooled[resolution.ERROR], pooled[resolution.BIAS]) == ("0.200", "0.100")
    # 4.243 steps lie 0.414 of the way from 3 to 6: 0.5 ** 0.414
    assert float(pooled["com-gauss"]) == pytest.approx(0.5**0.41421, abs=6e-4)
    assert rows["w 0.25, 1e5 e", "ccstae"]["com-gauss"] == "1.50"
    assert rows["w 0.25, 1e5 e", "com"]["com-gauss"] == "-"


def test_the_tables_of_resolution_and_transfer() -> None:
    made = {table.name: table for table in resolution.make(config(), scores())}
    rows = by_key(made["resolution"])
    width = rows[resolution.WIDTH, "exx", "w 0.25, 1e5 e"]
    assert (width["truth"], width["com"], width["com-gauss-2"]) == ("1.10", "1.25", "6.00")
    assert rows[resolution.HALF, "all", "w 0.25, 1e5 e"]["com-gauss-1"] == "6.00"
    assert "zero" not in made["resolution"].head
    assert made["mtf"].rows[1][:3] == ["exx", "5.0", "100"]
    assert list(made["mtf"].numbers["wavelength"].unique()) == list(LENGTHS)


def test_the_precision_that_a_map_tells_stands_over_its_error() -> None:
    made = {table.name: table for table in tables.make(config(), scores())}
    row = by_key(made["self_precision"])["exx", "w 0.25, 1e5 e"]
    assert (row["ccstae"], row["com-gauss-2"]) == ("50.0", "200")
    assert "zero" not in row


def test_the_figure_has_a_line_a_family_and_a_point_a_method() -> None:
    metrics = scores()
    maps = resolution.numbers(metrics)
    maps = maps[maps[resolution.MEASURE] == resolution.HALF]
    lines = style.lines([method for method in MADE if method != "zero"])
    with style.styled():
        drawn = figures.draw(maps, lines, true_width=1.1)
    panel = drawn.axes[0]
    family = next(line for line in panel.get_lines() if len(line.get_xdata()) == 4)
    assert list(family.get_xdata()) == [2.5, 3, 6, 12]
    assert list(family.get_ydata()) == pytest.approx([1.5, 1, 0.5, 0.25])
    points = {
        (float(line.get_xdata()[0]), round(float(line.get_ydata()[0]), 6))
        for line in panel.get_lines()
        if len(line.get_xdata()) == 1
    }
    assert {(2.5, 1.5), (2.5, 1.0), (4.2426407, 0.6), (4.2426407, 0.2)} <= points
    assert {text.get_text() for text in panel.texts} == {"0.5", "1", "2"}
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        "com",
        "ccstae",
        "ccstae-2023",
        "ccstae-pooled",
        "com-gauss",
        "truth",
    ]


def test_the_transfer_figure_holds_the_scores() -> None:
    lines = style.lines(["com", "com-gauss-2"])
    with style.styled():
        drawn = figures.draw_transfer(resolution.transfer(scores()), lines)
    panel = drawn.axes[0]
    line = next(one for one in panel.get_lines() if one.get_label() == "com-gauss-2")
    assert list(line.get_xdata()) == list(LENGTHS)
    assert list(line.get_ydata()) == pytest.approx([2.5 / 24, 5 / 24, 20 / 24])
