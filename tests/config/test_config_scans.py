"""Recorded scans in a config: what is refused, and the words that the commands get."""

from __future__ import annotations

from typing import Any

import pytest

from ccstae.config.plain_yaml import read_yaml
from ccstae.config.run import dump, parse
from ccstae.errors import InputError
from ccstae.pipeline import stages

SUM = "0" * 64
GOOD: dict[str, Any] = {
    "name": "recorded",
    "scans": {
        "one": {
            "path": "a.raw",
            "sha256": SUM,
            "scan": "4x6",
            "skip": 2,
            "electrons_per_unit": 0.01,
            "rings": ["gold.tif", "a=4.078"],
            "energy_keV": 80,
            "pixel_size_inv_A": 0.0125,
            "scan_rotation_deg": 0,
        },
        "two": {"url": "https://example.org/files/b.npy?download=1", "sha256": SUM},
    },
    "methods": {"com": None, "oracle": None},
}


def test_settings_become_options_of_the_commands() -> None:
    config = parse(GOOD)
    one, two = config.scans.values()
    assert one.import_options == [
        *("--scan", "4x6", "--skip", "2", "--electrons-per-unit", "0.01", "--sha256", SUM)
    ]
    assert one.calibration_options == [
        *("--rings", "gold.tif", "a=4.078", "--energy-keV", "80.0"),
        *("--pixel-size-inv-A", "0.0125", "--scan-rotation-deg", "0.0"),
    ]
    assert two.import_options == two.calibration_options == []  # its sum is seen to by the fetch
    assert two.name == "b.npy"


def test_positive_controls_map_no_scan() -> None:
    assert parse(GOOD).mapping_scans == ["com"]


def test_a_resolved_config_is_the_same_config() -> None:
    config = parse(GOOD)
    again = parse(read_yaml(dump(config), "text"))
    assert again.scans == config.scans
    assert dump(again) == dump(config)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ({"scans": {}}, "scans: dictionary should have at least 1 item"),
        ({"scans": {"one": {}}}, "scans.one: give exactly one of path and url"),
        ({"scans": {"one": {"path": "a", "url": "https://a/b", "sha256": SUM}}}, "exactly one"),
        ({"scans": {"one": {"url": "https://example.org/b.npy"}}}, "a url needs the sha256"),
        ({"scans": {"one": {"url": "http://example.org/b.npy", "sha256": SUM}}}, "scans.one.url"),
        ({"scans": {"one": {"path": "a", "material": "WS3"}}}, "did you mean 'WS2'"),
        ({"scans": {"one": {"path": "a", "material": "WS2", "lattice": "3,3,90"}}}, "not both"),
        ({"scans": {"one": {"path": "a", "skips": 1}}}, "unknown key 'skips'"),
        ({"scenes": {"s": {"kind": "uniform", "materials": ["WS2"]}}}, "expected scenes and noise"),
        ({"methods": {"com": {"tune": True}}}, "expected no search in a config with scans"),
        ({"throughput": "clean"}, "throughput"),
    ],
)
def test_bad_scans_are_one_line(blocks: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as error:
        parse({**GOOD, **blocks})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_without_scenes_and_scans_is_refused() -> None:
    with pytest.raises(InputError, match="expected scenes, with noise, or scans"):
        parse({"name": "none", "methods": {"com": None}})


def test_a_job_of_a_scan_gets_neither_the_file_nor_what_it_was_made_with() -> None:
    """So that an edit of these maps the scan anew by its new file alone, once."""
    config = parse(GOOD)
    narrowed = stages.narrow(config, "map", scan="one", method="com")
    assert list(narrowed.methods) == ["com"]
    changed = {**GOOD, "scans": {"one": {"path": "c.raw"}, "two": GOOD["scans"]["two"]}}
    assert stages.narrow(parse(changed), "map", scan="one", method="com") == narrowed
    fetched = stages.narrow(config, "fetch", scan="two")
    assert fetched.scans["two"].url == GOOD["scans"]["two"]["url"]
    for one in (narrowed, fetched):
        again = parse(read_yaml(stages.one_line(one), "line"))
        assert again.scans == one.scans
