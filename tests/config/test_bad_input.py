"""Bad configs and files: exit code 2 and one line that names file, place, value and what was
expected.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from good_config import GOOD, run

from ccstae.io.scores import COLUMNS

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
ABSENT = object()

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
    ("noise", {}, ["noise", "at least 1"]),
    ("noise.dose.electrons", 0, ["noise.dose.electrons", "greater than or equal to 1"]),
    ("noise.dose.electrons", -1e5, ["noise.dose.electrons", "-100000"]),
    ("noise.dose.electrons", NAN, ["noise.dose.electrons", "nan"]),
    ("noise.dose.electrons", 1e30, ["noise.dose.electrons", "at most 1e+10", "1e+30"]),
    ("noise.dose.electrons", [], ["noise.dose.electrons", "at least 1"]),
    ("noise.dose.background", 1, ["noise.dose.background", "less than 1"]),
    ("noise.dose.background", [0.251, 0.252], ["noise", "share the name w0.25_n100000"]),
    ("noise.clean.background", 0.5, ["noise.clean", "goes with background 0"]),
    ("noise.dose.electron", 5, ["noise.dose.electron", "did you mean 'electrons'?"]),
    ("seeds.test", [], ["seeds.test", "at least 1"]),
    ("seeds.test", [-1], ["seeds.test.0", "greater than or equal to 0", "-1"]),
    ("seeds.test", [1.5], ["seeds.test.0", "integer", "1.5"]),
    ("seeds.test", [10**40], ["seeds.test.0", "less than"]),
    ("seeds.test", [1, 1], ["seeds", "twice"]),
    ("seeds.test", [101], ["seeds", "both test and tune"]),
    ("seeds.tests", [1], ["seeds.tests", "did you mean 'test'?"]),
    ("methods", {}, ["methods", "at least 1"]),
    ("methods", ["zero"], ["methods", "dictionary", "['zero']"]),
    (
        "methods.templat",
        None,
        ["methods.templat", "unknown method 'templat'", "did you mean 'template'?"],
    ),
    ("methods.zero", {"setings": {}}, ["methods.zero.setings", "did you mean 'settings'?"]),
    (
        "methods.template.settings.upsampling",
        4,
        ["methods.template.settings.upsampling", "did you mean 'upsample'?"],
    ),
    (
        "methods.template.settings.upsample",
        1,
        ["methods.template.settings.upsample", "greater than or equal to 2"],
    ),
    (
        "methods.template.settings.kernel",
        "sigmoidal",
        ["methods.template.settings.kernel", "'sigmoid'"],
    ),
    ("methods.template.time_limit_s", 0, ["methods.template.time_limit_s", "greater than 0"]),
    (
        "methods.cepstral",
        {"settings": {"offset_electrons": 0}},
        ["methods.cepstral.settings.offset_electrons", "greater than 0"],
    ),
    (
        "methods.cepstral",
        {"settings": {"background": "ring"}},
        ["methods.cepstral.settings.background", "'radial'", "'ring'"],
    ),
    (
        "methods.cepstral",
        {"settings": {"upsamples": 8}},
        ["methods.cepstral.settings.upsamples", "did you mean 'upsample'?"],
    ),
    (
        "methods.com",
        {"settings": {"weights": "mass"}},
        ["methods.com.settings.weights", "'information'", "'mass'"],
    ),
    (
        "methods.ccstae",
        {"settings": {"seed": -1}},
        ["methods.ccstae.settings.seed", "greater than or equal to 0"],
    ),
    (
        "methods.ccstae",
        {"settings": {"seed": 10**40}},
        ["methods.ccstae.settings.seed", "less than"],
    ),
    (
        "methods.ccstae",
        {"settings": {"device": "tpu"}},
        ["methods.ccstae.settings.device", "'auto', 'cpu' or 'gpu'", "'tpu'"],
    ),
    ("methods.com", {"tune": True}, ["methods.com.tune", "a scene with tune: true"]),
    ("methods.ccstae", {"tune": True}, ["methods.ccstae.tune", "no settings to try"]),
    ("methods.mine", {"command": "a", "tune": True}, ["methods.mine.tune", "no settings to try"]),
    ("methods.com", {"tune": "perhaps"}, ["methods.com.tune", "boolean", "'perhaps'"]),
    ("methods.com", {"tune": {"threshold": []}}, ["methods.com.tune", "threshold", "at least 1"]),
    ("methods.com", {"tune": {"threshold": 0.1}}, ["methods.com.tune", "threshold", "list", "0.1"]),
    (
        "methods.ccstae",
        {"settings": {"without": ["encoders"]}},
        ["methods.ccstae.settings.without.0", "'encoder'", "'encoders'"],
    ),
    (
        "methods.ccstae",
        {"settings": {"epochs": [1, 2]}},
        ["methods.ccstae.settings.epochs", "unknown key"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"pools": []}},
        ["methods.ccstae-2023.settings.pools", "at least 1"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"epochs": [2]}},
        ["methods.ccstae-2023.settings.epochs.1", "required"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"epochs": [2, 0]}},
        ["methods.ccstae-2023.settings.epochs.1", "greater than or equal to 1"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"learning_rate": [NAN, 0.1]}},
        ["methods.ccstae-2023.settings.learning_rate.0", "nan"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"scale_limit": 0.5}},
        ["methods.ccstae-2023.settings.scale_limit", "less than 0.5"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"channel": 8}},
        ["methods.ccstae-2023.settings.channel", "did you mean 'channels'?"],
    ),
    (
        "methods.zero",
        {"environment": "py4dstem"},
        ["methods.zero", "environment goes with a command alone"],
    ),
    (
        "methods.mine",
        {"command": "a", "environment": "../up"},
        ["methods.mine.environment", "pattern", "'../up'"],
    ),
    ("throughput", "w0.25", ["throughput", "w0.25"]),
    ("throughput", 5, ["throughput", "string", "5"]),
    ("methods.mine", {"command": ""}, ["methods.mine", "expected a program"]),
    ("methods.mine", {"command": "a\0b"}, ["methods.mine", "expected a program"]),
    ("methods.mine", {"command": "a", "method": "zero"}, ["methods.mine", "not both"]),
]


def _aliases(form: str, alias: str) -> bytes:
    """Ten lines, each of ten aliases of the line before: written out, they fill any memory."""
    lines = ["name: mine", "a0: &a0 {x: 1}"]
    for n in range(1, 11):
        inside = ", ".join(alias.format(n - 1, k) for k in range(10))
        lines.append(f"a{n}: &a{n} {form.format(inside)}")
    return "\n".join(lines).encode()


# Whole files, and what the message must say beside the file's name.
TEXTS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["expected a mapping", "NoneType"]),
    "a list": (b"- a\n- b\n", ["expected a mapping", "list"]),
    "a word": (b"name", ["expected a mapping", "str"]),
    "not YAML": (b"name: mine\nmethods: [zero\n", ["line 3", "not valid YAML"]),
    "tabs": (b"name: mine\nseeds:\n\ttest: [1]\n", ["line 3", "not valid YAML"]),
    "aliases of aliases": (_aliases("[{}]", "*a{}"), ["more than 131072 values"]),
    "aliases of aliases in mappings": (
        _aliases("{{{}}}", "k{1}: *a{0}"),
        ["more than 131072 values"],
    ),
    "aliases of aliases that are merged": (
        _aliases("{{<<: [{}]}}", "*a{}"),
        ["line 8", "more than 131072 values"],
    ),
    "a key given twice": (b"name: mine\nname: yours\n", ["line 2", "'name' is given twice"]),
    "a key given twice, further in": (
        b"name: mine\nseeds:\n  test: [1]\n  test: [2]\n",
        ["line 4", "'test' is given twice"],
    ),
    "a Python object": (
        b"name: !!python/object/apply:os.system ['touch x']\n",
        ["line 1", "not valid YAML"],
    ),
    "not text": (b"name: \xff\xfe\n", ["not text", "byte 6"]),
    "binary": (b"\x89HDF\r\n\x1a\n" + bytes(64), ["not text"]),
    "an unknown anchor": (b"name: *mine\n", ["line 1", "not valid YAML"]),
    "a mapping that holds itself": (
        b"name: mine\nmethods: &m {zero: *m}\n",
        ["line 2", "recursive"],
    ),
    "a list that holds itself": (
        b"name: mine\nmethods: {mine: {command: a, settings: {b: &b [*b]}}}\n",
        ["line 2", "recursive"],
    ),
    "nested without end": (b"a: " + b"[" * 100_000, ["no config"]),
    "too long": (b"# " + b"x" * 2**20, ["1048578 characters"]),
    "a template": (
        b"__use_yte__: true\n?__import__('pathlib').Path('x').touch():\n  name: mine\n",
        ["__use_yte__", "unknown key"],
    ),
}


def refused(
    words: list[str],
    expected: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command ends with code 2 and one line that says what is expected of it, and leaves no new
    file.
    """
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run(*words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert [part for part in expected if part not in said.err] == [], said.err
    assert said.out == ""
    assert sorted(folder.rglob("*")) == before


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good config with one entry set, or taken out."""
    data = copy.deepcopy(GOOD)
    *outer, last = path.split(".")
    place = data
    for key in outer:
        place = place.setdefault(key, {})
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return data


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
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed(path, value)))
    refused(
        ["config", "check", "config.yaml"],
        ["config.yaml", *expected],
        tmp_path,
        monkeypatch,
        capsys,
    )


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = TEXTS[name]
    (tmp_path / "config.yaml").write_bytes(text)
    refused(
        ["config", "check", "config.yaml"],
        ["config.yaml", *expected],
        tmp_path,
        monkeypatch,
        capsys,
    )


SCORES = ",".join(COLUMNS) + "\n"
TUNED = {
    "method": "template",
    "level": "w0.00_n100000",
    "settings": {"upsample": 8},
    "error": 1.0,
    "error_before": 2.0,
    "tried": 3,
}
MAP = [
    "map",
    "config.yaml",
    "template",
    "--counts",
    "counts.h5",
    "--out",
    "map.h5",
    "--tuned",
    "tuned.yaml",
]


def chosen(text: str) -> Callable[[Path], object]:
    """A good config with a file of settings that a search chose."""
    return lambda f: (
        (f / "config.yaml").write_text(yaml.safe_dump(GOOD)),
        (f / "tuned.yaml").write_text(text),
    )


COMMANDS: dict[str, tuple[list[str], Callable[[Path], object], list[str]]] = {
    "no config": (["config", "check", "none.yaml"], lambda f: None, ["none.yaml", "No such file"]),
    "a folder": (["config", "check", "."], lambda f: None, [".", "directory"]),
    "no scores": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: None,
        ["m.csv", "no such file"],
    ),
    "scores with other columns": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text("a,b\n1,2\n"),
        ["m.csv", "columns are a, b", "expected scene"],
    ),
    "scores that are binary": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_bytes(bytes(range(256))),
        ["m.csv", "not a readable table"],
    ),
    "scores whose values are words": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text(SCORES + "a,zero,0,1e5,1,all,exx,rmse,low\n"),
        ["m.csv", "not a readable table", "'low'"],
    ),
    "no baseline": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text(SCORES + "a,zero,0,1e5,1,all,exx,rmse,1e-4\n"),
        ["b.yaml", "expected a baseline"],
    ),
    "no chosen settings": (
        MAP,
        lambda f: (f / "config.yaml").write_text(yaml.safe_dump(GOOD)),
        ["tuned.yaml", "No such file", "ccstae tune"],
    ),
    "chosen settings that are no YAML": (
        MAP,
        chosen("method: [template"),
        ["tuned.yaml", "line 1", "not valid YAML"],
    ),
    "chosen settings that are none": (
        MAP,
        chosen("- 1"),
        ["tuned.yaml", "expected settings chosen by"],
    ),
    "chosen settings that make an object": (
        MAP,
        chosen("!!python/object/apply:os.system ['touch x']"),
        ["tuned.yaml", "not valid YAML"],
    ),
    "settings chosen for another method": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"method": "com"})),
        ["tuned.yaml", "method is 'com'", "expected 'template'"],
    ),
    "chosen settings out of bounds": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"settings": {"upsample": 1}})),
        ["tuned.yaml", "methods.template.settings.upsample", "greater than or equal to 2", "got 1"],
    ),
    "chosen settings that the method does not know": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"settings": {"upsamples": 8}})),
        ["tuned.yaml", "methods.template.settings.upsamples", "did you mean 'upsample'?"],
    ),
    "a map that is text": (
        ["check-map", "map.h5"],
        lambda f: (f / "map.h5").write_text("F"),
        ["map.h5", "not a readable HDF5 file"],
    ),
    "a map without F": (
        ["check-map", "map.h5"],
        lambda f: h5py.File(f / "map.h5", "w").close(),
        ["map.h5", "no dataset /F"],
    ),
    "a map of another shape": (
        ["check-map", "map.h5"],
        lambda f: (
            h5py.File(f / "map.h5", "w")
            .create_dataset("F", data=np.zeros((4, 4, 3, 3)))
            .file.close()
        ),
        ["map.h5", "/F has shape (4, 4, 3, 3)", "(Ry, Rx, 2, 2)"],
    ),
    "a map of another scan": (
        ["check-map", "map.h5", "--counts", "counts.h5"],
        lambda f: [
            h5py.File(f / name, "w").create_dataset(key, data=data).file.close()
            for name, key, data in (
                ("map.h5", "F", np.broadcast_to(np.eye(2), (5, 5, 2, 2))),
                ("counts.h5", "counts", np.zeros((9, 9, 8, 8), np.uint32)),
            )
        ],
        ["map.h5", "/F has shape (5, 5, 2, 2)", "expected (9, 9, 2, 2)"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_file_of_another_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, prepare, expected = COMMANDS[name]
    prepare(tmp_path)
    refused(words, expected, tmp_path, monkeypatch, capsys)
