"""Bad settings of instrument, specimen and files: exit code 2 and one line that names file, place,
value and what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from good_config import ABSENT, GOOD, changed, config_refused, run

ARRAY = {"path": "a.npy", "sha256": "0" * 64}
LABELLED = {
    "kind": "labelled",
    "materials": ["WS2"],
    "exx": ARRAY,
    "eyy": ARRAY,
    "exy": ARRAY,
    "rotation": ARRAY,
}
INF, NAN = float("inf"), float("nan")
# What is set where in the good config, and what the message must say.
SETTINGS: list[tuple[str, Any, list[str]]] = [
    ("nane", "x", ["nane", "unknown key", "did you mean 'name'?"]),
    ("name", ABSENT, ["name", "required"]),
    ("name", 3, ["name", "string", "got 3"]),
    ("name", "", ["name", "pattern", "''"]),
    ("name", "../up", ["name", "pattern", "'../up'"]),
    ("name", "/etc", ["name", "pattern", "'/etc'"]),
    ("name", "a/b", ["name", "pattern"]),
    ("name", "..", ["name", "pattern"]),
    ("name", "mine\n", ["name", "pattern"]),
    ("name", "~root", ["name", "pattern"]),
    ("name", "$(touch x)", ["name", "pattern"]),
    ("name", "a" * 65, ["name", "64"]),
    ("name", "münchen", ["name", "pattern"]),
    ("device", "cuda", ["device", "'auto', 'cpu' or 'gpu'", "'cuda'"]),
    ("keep_counts", "perhaps", ["keep_counts", "boolean", "'perhaps'"]),
    ("microscope", [1], ["microscope", "Microscope", "[1]"]),
    ("microscope.energy_kev", 80, ["microscope.energy_kev", "did you mean 'energy_keV'?"]),
    ("microscope.energy_keV", -80, ["microscope.energy_keV", "greater than or equal to 10", "-80"]),
    ("microscope.energy_keV", NAN, ["microscope.energy_keV", "finite number", "nan"]),
    ("microscope.energy_keV", INF, ["microscope.energy_keV", "finite number", "inf"]),
    ("microscope.energy_keV", "80 kV", ["microscope.energy_keV", "valid number", "'80 kV'"]),
    ("microscope.semiangle_mrad", 0, ["microscope.semiangle_mrad", "greater than 0"]),
    ("microscope.semiangle_mrad", 31, ["microscope.semiangle_mrad", "less than or equal to 30"]),
    (
        "microscope.semiangle_mrad",
        0.003,
        ["microscope: disks of radius 0.005526 px", "looks like semiangle_mrad given in rad"],
    ),
    ("microscope.semiangle_mrad", 8, ["microscope.semiangle_mrad: the disks overlap at 8 mrad"]),
    (
        "microscope.pixel_size_inv_A",
        0.13,
        ["at least 1 px", "looks like pixel_size_inv_A given in 1/nm"],
    ),
    (
        "microscope.pixel_size_inv_A",
        0.0013,
        ["microscope: the first ring", "looks like pixel_size_inv_A given in 1/Angstrom, but"],
    ),
    ("microscope.pixel_size_inv_A", 1.3, ["microscope.pixel_size_inv_A", "0.2"]),
    ("microscope.detector_px", 127, ["microscope.detector_px", "multiple of 2", "127"]),
    ("microscope.detector_px", 1e9, ["microscope.detector_px", "1024"]),
    (
        "microscope.point_spread_px",
        -1,
        ["microscope.point_spread_px", "greater than or equal to 0"],
    ),
    ("microscope.nuisances.dead_px", 0.5, ["microscope.nuisances.dead_px", "0.2", "0.5"]),
    ("microscope.nuisances.dead_pixels", 0.1, ["microscope.nuisances.dead_pixels", "unknown key"]),
    ("microscope.nuisances.hot_level", 0, ["microscope.nuisances.hot_level", "greater than 0"]),
    (
        "microscope.nuisances.source_size_A",
        NAN,
        ["microscope.nuisances.source_size_A", "finite number"],
    ),
    ("microscope.nuisances.descan_px", [1, 1], ["microscope.nuisances.descan_px.0", "tuple"]),
    (
        "microscope.nuisances.descan_px",
        [[0, 99], [0, 0]],
        ["microscope.nuisances.descan_px.0.1", "20", "99"],
    ),
    (
        "microscope.nuisances.distortion",
        [[1, 0], [0, INF]],
        ["microscope.nuisances.distortion.1.1", "inf"],
    ),
    ("microscope.nuisances.distortion", [[1, 1], [1, 1]], ["microscope.nuisances", "distortion"]),
    ("microscope.nuisances.seed", 10**40, ["microscope.nuisances.seed", "less than"]),
    ("simulation.tile_A", 1, ["simulation.tile_A", "50"]),
    ("materials", {}, ["materials", "at least 1"]),
    ("materials.W S2", {"prototype": "mx2-2h"}, ["materials.W S2", "pattern"]),
    ("materials.WS2.prototype", "mx2_2h", ["materials.WS2.prototype", "'mx2-2h'"]),
    ("materials.WS2.species", ["W"], ["materials.WS2", "takes 2 species, got 1"]),
    ("materials.WS2.a_A", ABSENT, ["materials.WS2", "needs a_A"]),
    ("materials.WS2.a_A", -3.1, ["materials.WS2.a_A", "greater than 0.5", "-3.1"]),
    (
        "materials.WS2.structure",
        "WS2.cif",
        ["materials.WS2", "exactly one of prototype and structure"],
    ),
    ("materials.WS2.thicknes_A", 3.1, ["materials.WS2.thicknes_A", "did you mean 'thickness_A'?"]),
    ("materials.WS2", None, ["materials.WS2", "Material", "None"]),
    (
        "materials.WS2.layer_distance_A",
        1,
        ["materials.WS2", "layer_distance_A must be more than thickness_A"],
    ),
    ("materials.WS2.thermal_A", {"W": 0.6}, ["materials.WS2.thermal_A.W", "0.5", "0.6"]),
    ("materials.WS2.thermal_A", {"tungsten": 0.1}, ["materials.WS2.thermal_A.tungsten", "pattern"]),
    ("materials.WS2.zone_axis", [0, 0], ["materials.WS2.zone_axis.2", "required"]),
    ("scenes", {}, ["scenes", "at least 1"]),
    ("scenes.pair.layers", 0, ["scenes.pair.layers", "greater than or equal to 1", "0"]),
    ("scenes.pair.layers", 1.5, ["scenes.pair.layers", "integer", "1.5"]),
    ("scenes.pair.stacking", "BA", ["scenes.pair.stacking", "'ABC'", "'BA'"]),
    ("scenes.pair.tilt_mrad", 3, ["scenes.pair.tilt_mrad", "tuple", "3"]),
    ("scenes.pair.tilt_mrad", [0, 51], ["scenes.pair.tilt_mrad.1", "50", "51"]),
    ("scenes.pair.tilt_mrad", [NAN, 0], ["scenes.pair.tilt_mrad.0", "nan"]),
    ("scenes.pair.tune", "perhaps", ["scenes.pair.tune", "boolean", "'perhaps'"]),
    (
        "scenes.pair.dislocations",
        {"core_A": 0},
        ["scenes.pair.dislocations.core_A", "greater than 0"],
    ),
    (
        "scenes.pair.ripple",
        {"height_A": 20, "wavelength_A": 100},
        ["scenes.pair.ripple", "steeper than 30 degrees"],
    ),
    (
        "scenes.pair",
        {"kind": "ramp", "materials": ["WS2"], "exx": 0.2},
        ["scenes.pair.exx", "0.1", "0.2"],
    ),
    (
        "scenes.pair",
        {"kind": "polycrystal", "materials": ["WS2"], "grains": 1},
        ["scenes.pair.grains", "greater than or equal to 2"],
    ),
    (
        "scenes.pair",
        LABELLED | {"exx": {"sha256": "0" * 64}},
        ["scenes.pair.exx", "exactly one of path and url"],
    ),
    (
        "scenes.pair",
        LABELLED | {"exx": {"path": "a.npy", "sha256": "0"}},
        ["scenes.pair.exx.sha256", "pattern"],
    ),
    (
        "scenes.pair",
        LABELLED | {"exx": {"url": "file:///etc/passwd", "sha256": "0" * 64}},
        ["scenes.pair.exx.url", "pattern"],
    ),
    ("scenes.pair", {}, ["scenes.pair", "kind"]),
    ("scenes.pair.kind", "heterostructur", ["scenes.pair.kind", "'heterostructur"]),
    (
        "scenes.pair.materials",
        ["WS2", "WSE2"],
        ["scenes.pair.materials", "unknown material 'WSE2'", "did you mean 'WS"],
    ),
    ("scenes.pair.materials", ["WS2"], ["scenes.pair.materials:", "two materials", "['WS2']"]),
    ("scenes.pair.materials", [], ["scenes.pair.materials:", "two materials", "[]"]),
    (
        "scenes.pair",
        {"kind": "ramp", "materials": ["WS2", "WSe2"]},
        ["scenes.pair.materials:", "expected one material", "['WS2', 'WSe2']"],
    ),
    (
        "scenes.pair.materials",
        ["WS2", "MoSe"],
        ["scenes.pair.materials", "unknown material 'MoSe'", "did you mean 'MoSe2'?"],
    ),
    (
        "scenes.pair.materials",
        ["WS2", "platinum"],
        ["unknown material 'platinum'", "one of MoS2, MoSe2, WS2, WSe2, graphene, hBN"],
    ),
    ("materials", None, ["materials", "dictionary", "None"]),
    ("materials.WS2", "inherit", ["materials.WS2: inherit", "expected `extends: PARENT`"]),
    ("scenes.pair", "inherit", ["scenes.pair: inherit", "expected `extends: PARENT`"]),
    ("scenes", "inherit", ["scenes", "dictionary", "'inherit'"]),
    ("extends", "nowhere.yaml", ["extends: nowhere.yaml", "no such file"]),
    ("extends", "config", ["extends: config", "no such file"]),
    ("extends", "/dev/zero", ["extends: got '/dev/zero'", "from the folder of this one"]),
    ("extends", "../../../dev/zero", ["extends: ../../../dev/zero", "no such file"]),
    ("extends", "a\0b", ["extends", "no such file"]),
    ("extends", "a" * 5000, ["extends", "no such file"]),
    ("extends", "", ["extends: .", "no such file"]),
    ("extends", ["a.yaml", "b.yaml"], ["extends: got ['a.yaml'", "the path of one config"]),
    ("extends", None, ["extends: got None", "the path of one config"]),
    ("extends", "config.yaml", ["config.yaml: extends: config.yaml extends itself"]),
    ("scenes.pair.scan.shape", [8], ["scenes.pair.scan.shape.1", "required"]),
    ("scenes.pair.scan.shape", [8, 1], ["scenes.pair.scan.shape.1", "greater than or equal to 2"]),
    ("scenes.pair.scan.shape", [8, 10**9], ["scenes.pair.scan.shape.1", "4096"]),
    ("scenes.pair.scan.steps_A", 4, ["scenes.pair.scan.steps_A", "did you mean 'step_A'?"]),
    ("scenes.pair.interface_A", NAN, ["scenes.pair.interface_A", "finite number"]),
    (
        "scenes.pair.interface_width_A",
        -1,
        ["scenes.pair.interface_width_A", "greater than or equal to 0"],
    ),
    (
        "scenes.pair.inclusions",
        [{"centre_A": [0, 0]}],
        ["scenes.pair.inclusions.0.radius_A", "required"],
    ),
    (
        "scenes.pair.inclusions",
        [{"centre_A": [0, 0], "radius_A": 9, "exx": 0.5}],
        ["scenes.pair.inclusions.0.exx", "0.1", "0.5"],
    ),
    ("scenes.pair.reference_A", [0, 1, 2], ["scenes.pair.reference_A.3", "required"]),
]


def test_the_good_config_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert run("config", "check", str(path), monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    SETTINGS,
    ids=[f"{path} {i}" for i, (path, _, _) in enumerate(SETTINGS)],
)
def test_a_bad_setting(
    path: str,
    value: Any,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config_refused(yaml.safe_dump(changed(path, value)), expected, tmp_path, monkeypatch, capsys)
