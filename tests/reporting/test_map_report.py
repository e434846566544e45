"""The page of a map shows the numbers of the map, in their places, and moves all maps together."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.counts import write_counts
from ccstae.io.maps import Map, write_map
from ccstae.reporting import linked_maps, map_report
from ccstae.reporting.linked_maps import Panel, Scale
from ccstae.simulation.ideal import IdealCrystal

SCAN = (3, 5)
CRYSTAL = IdealCrystal()
SPOT = (slice(30, 32), slice(90, 93))


def made() -> Map:
    """A map whose components are known, with one position without an answer."""
    components = np.zeros((*SCAN, 4))
    components[..., 0] = 0.001 * np.arange(15).reshape(SCAN)
    components[..., 3] = 0.03
    F = geometry.deformation(*np.moveaxis(components, -1, 0))
    F[2, 4] = np.nan
    covariance = np.tile(np.diag([1e-3, 2e-3, 3e-3, 4e-3]) ** 2, (*SCAN, 1, 1))
    label = np.ones(SCAN, np.int8)
    label[0] = 3
    residual = np.zeros((128, 128), np.float32)
    residual[SPOT] = 2.0
    attributes = {
        "method": "mine",
        "settings": "{}",
        "step_A": 20.0,
        "found": '{"gain": 1.234567}',
    }
    return Map(F, attributes, covariance, label, residual=residual)


def scan_file(path: Path) -> Path:
    counts = CRYSTAL.counts(np.tile(np.eye(2), (*SCAN, 1, 1)), 1e5, 0.25)
    write_counts(path, counts.scan_rows(), (*SCAN, 128, 128), counts.calibration, counts.probe)
    return path


def page(tmp_path: Path, answer: Map, reference: str | None = None) -> str:
    write_map(tmp_path / "map.h5", answer)
    scan = scan_file(tmp_path / "scan.h5")
    map_report.write(tmp_path / "map.h5", scan, tmp_path / "report.html", reference)
    return (tmp_path / "report.html").read_text()


def layers(text: str) -> dict[str, NDArray[Any]]:
    """The images that the page holds, by their names."""
    found: dict[str, NDArray[Any]] = {}
    (stored,) = re.findall(r"const docs_json = '(.*)';", text)

    def search(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                search(item)
        elif isinstance(node, dict):
            for pair in node.get("entries", []) if node.get("type") == "map" else []:
                if isinstance(pair[1], list) and isinstance(pair[1][0], dict):
                    array = pair[1][0]
                    stored_values = gzip.decompress(base64.b64decode(array["array"]["data"]))
                    values = np.frombuffer(stored_values, array["dtype"])
                    found[pair[0]] = values.reshape(array["shape"])
            for item in node.values():
                search(item)

    search(json.loads(html.unescape(stored.encode().decode("unicode_escape"))))
    return found


def test_the_page_holds_the_numbers_of_the_map(tmp_path: Path) -> None:
    answer = made()
    text = page(tmp_path, answer, "0:1,0:1")
    shown = layers(text)
    assert set(geometry.COMPONENTS) < set(shown)
    answered = np.isfinite(answer.F).all((-1, -2))
    assert np.isnan(shown["exx"][~answered]).all()
    # F against that of the first position, of the same rotation: exx alone is left, to first order
    expected = 0.1 * np.arange(15).reshape(SCAN)
    np.testing.assert_allclose(shown["exx"][answered], expected[answered], atol=2e-3)
    np.testing.assert_allclose(shown["theta"][answered], 0, atol=1e-3)
    assert shown["eyy_deviation"][0, 0] == pytest.approx(0.2, rel=0.02)  # %
    assert shown["theta_deviation"][0, 0] == pytest.approx(4, rel=0.02)  # mrad
    assert shown["label"][0].tolist() == [3] * 5
    assert shown["residual"][SPOT].tolist() == [[2.0] * 3] * 2
    mean = shown["mean"][SPOT] - 2.0
    expected_z = 2 / np.sqrt(mean.clip(1 / 14) / 14)
    # The mean that is shown is over the position without an answer too.
    np.testing.assert_allclose(shown["deviations"][SPOT], expected_z, rtol=0.2)
    assert "gain: 1.235" in text
    assert "of a method of this package" in text  # why nothing was mapped by halves


def test_the_page_opens_offline_and_holds_bokeh_once(tmp_path: Path) -> None:
    text = page(tmp_path, replace(made(), residual=None, covariance=None))
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(?!data:)', text)
    assert len(text) < 2e6
    assert text.count("Bokeh Contributors") == 1
    assert "holds no residual" in text
    assert "states no standard deviations" in text.replace("\n", " ")
    assert "residual" not in layers(text)


def test_bad_pixels_are_left_out_of_the_residual_that_is_shown(tmp_path: Path) -> None:
    answer = made()
    assert answer.residual is not None
    answer.residual[5, 7] = np.nan
    shown = layers(page(tmp_path, answer))
    for name in ("residual", "deviations"):
        assert np.argwhere(np.isnan(shown[name])).tolist() == [[5, 7]]


def test_a_residual_of_another_detector_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/residual has the shape \(4, 4\)"):
        page(tmp_path, replace(made(), residual=np.zeros((4, 4), np.float32)))
    assert not (tmp_path / "report.html").exists()


def test_maps_share_ranges_values_and_colours_and_row_0_is_at_the_top() -> None:
    one, other = Scale(0, 1, "viridis", "%"), Scale(0, 9, "gray", "electrons")
    layer = np.arange(6, dtype=np.float32).reshape(2, 3)
    grid = linked_maps.linked(
        {"a": layer, "b": -layer},
        [[Panel("a", "A", one), Panel("b", "B", one)], [Panel("a", "C", other)]],
        [("a", "@a")],
        2.0,
        ("x / nm", "y / nm"),
    )
    plots = [place[0] for place in grid.children]
    assert {plot.x_range.id for plot in plots} == {plots[0].x_range.id}
    assert {plot.y_range.id for plot in plots} == {plots[0].y_range.id}
    assert (plots[0].x_range.start, plots[0].x_range.end) == (0, 6)
    assert (plots[0].y_range.start, plots[0].y_range.end) == (4, 0)
    images = [plot.renderers[0] for plot in plots]
    assert len({image.data_source.id for image in images}) == 1
    mappers = [image.glyph.color_mapper for image in images]
    assert mappers[0] is mappers[1]
    assert mappers[0] is not mappers[2]
    assert [len(plot.right) for plot in plots] == [0, 1, 1]  # a scale has one bar a row


@pytest.mark.parametrize(("shape", "step"), [((512, 512), 1), ((513, 512), 2), ((2, 10**6), 4)])
def test_large_maps_show_every_so_many_positions(shape: tuple[int, int], step: int) -> None:
    assert linked_maps.shown_step(shape) == step


def test_of_what_is_left_out_nothing_moves() -> None:
    layer = np.zeros((1025, 600), np.float32)
    layer[1022, 598] = 1.0
    scale = Scale(0, 1, "viridis", "")
    grid = linked_maps.linked({"a": layer}, [[Panel("a", "A", scale)]], [], 1.0, ("x", "y"))
    image = grid.children[0][0].renderers[0]
    data = image.data_source.data
    (place,) = np.argwhere(data["a"][0])
    assert (data["row"][0][tuple(place)], data["column"][0][tuple(place)]) == (1022, 598)
    side = image.glyph.dh / data["a"][0].shape[0]
    assert place[0] * side == 1022
