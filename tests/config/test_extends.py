"""`extends` and `inherit`: what a config takes from its parent, from files, text and Snakemake."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from good_config import GOOD

from ccstae.config.run import Config, dump, from_snakemake, load, parse, read
from ccstae.errors import InputError


def written(folder: Path, name: str, data: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the good config, to extend."""
    written(tmp_path, "good.yaml", GOOD)
    return tmp_path


def child(folder: Path, **blocks: Any) -> Config:
    data = {"extends": "good.yaml", "name": "child", **blocks}
    return load(written(folder, "child.yaml", data))


def test_what_a_child_does_not_give_is_the_parents(folder: Path) -> None:
    assert child(folder) == parse({**GOOD, "name": "child"})


def test_a_block_replaces_the_whole_block_of_the_parent(folder: Path) -> None:
    found = child(
        folder,
        microscope={"energy_keV": 120, "semiangle_mrad": 2},
        noise={"one": {"electrons": 100}},
        seeds={"test": [7]},
    )
    assert found.microscope.detector_px == 128  # the default, and what the parent says
    assert [level.name for level in found.levels] == ["w0.00_n100"]
    assert found.seeds.test == (7,)
    assert found.seeds.tune == (101,)  # the default
    other = child(folder, microscope={"energy_keV": 120, "pixel_size_inv_A": 0.012})
    assert other.microscope.semiangle_mrad == 3.0


def test_one_item_is_taken_by_its_id_in_the_childs_order(folder: Path) -> None:
    found = child(
        folder,
        materials={"WS2": "inherit", "WSe2": "inherit"},
        scenes={
            "other": {"kind": "ramp", "materials": ["MoS2"]},
            "pair": "inherit",
        },
        noise={"clean": "inherit"},
        methods={"com": None, "template": "inherit"},
    )
    good = parse(GOOD)
    assert list(found.scenes) == ["other", "pair"]
    assert found.scenes["pair"] == good.scenes["pair"]
    assert found.levels == good.levels[:1]
    assert list(found.methods) == ["com", "template"]
    assert found.methods["template"] == good.methods["template"]
    assert found.materials["WS2"] == good.materials["WS2"]


def test_a_parent_may_extend_another_from_its_own_folder(folder: Path) -> None:
    middle = {"extends": "../good.yaml", "name": "middle", "seeds": {"test": [5], "tune": []}}
    written(folder, "far/middle.yaml", middle)
    path = written(folder, "child.yaml", {"extends": "far/middle.yaml", "name": "child"})
    found = load(path)
    assert found == parse({**GOOD, "name": "child", "seeds": {"test": [5], "tune": []}})


def test_a_resolved_child_stands_alone(folder: Path, tmp_path: Path) -> None:
    text = dump(child(folder, scenes={"pair": "inherit"}))
    alone = tmp_path / "elsewhere" / "resolved.yaml"
    alone.parent.mkdir()
    alone.write_text(text)
    assert dump(load(alone)) == text


def test_the_parent_of_standard_input_is_looked_for_from_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO("{extends: good.yaml, name: child}"))
    assert read("-") == parse({**GOOD, "name": "child"})


def test_a_material_of_the_config_overrides_the_packages(folder: Path) -> None:
    found = child(folder, scenes={"one": {"kind": "ramp", "materials": ["WS2"]}})
    assert list(found.materials) == ["WS2"]
    assert found.materials["WS2"].layer_distance_A is None  # of the parent's own
    data = {block: given for block, given in GOOD.items() if block != "materials"}
    assert parse(data).materials["WS2"].layer_distance_A == 6.16


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no name of its own": ({"name": None}, ["child.yaml", "name", "string"]),
    "an item that the parent lacks": (
        {"scenes": {"pairs": "inherit"}},
        ["child.yaml: scenes.pairs: inherit", "good.yaml", "unknown scene", "did you mean 'pair'?"],
    ),
    "an item of a block that the parent lacks": (
        {"extends": "bare.yaml", "noise": {"clean": "inherit"}},
        ["child.yaml: noise.clean: inherit", "bare.yaml gives no noise"],
    ),
    "inherit by a parent that extends nothing": (
        {"extends": "lost.yaml"},
        ["lost.yaml: scenes.pair: inherit", "expected `extends: PARENT`"],
    ),
    "a parent that is a list": (
        {"extends": "list.yaml"},
        ["child.yaml: extends: ", "list.yaml: expected a mapping of settings, got list"],
    ),
    "a parent that is no YAML": ({"extends": "broken.yaml"}, ["broken.yaml: line 2", "not valid"]),
    "a parent that makes an object": (
        {"extends": "object.yaml"},
        ["object.yaml", "not valid YAML"],
    ),
    "a parent with a key given twice": ({"extends": "twice.yaml"}, ["twice.yaml", "given twice"]),
    "a circle": (
        {"extends": "a.yaml"},
        ["b.yaml: extends: a.yaml extends itself in the end"],
    ),
    "a parent with an unknown key": ({"extends": "odd.yaml"}, ["nane", "unknown key"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_parent_is_refused_in_one_line(case: str, folder: Path) -> None:
    blocks, expected = REFUSED[case]
    written(folder, "bare.yaml", {"name": "bare"})
    written(folder, "lost.yaml", {**copy.deepcopy(GOOD), "scenes": {"pair": "inherit"}})
    written(folder, "list.yaml", [1])
    written(folder, "odd.yaml", {**GOOD, "nane": 1})
    written(folder, "a.yaml", {"extends": "b.yaml"})
    written(folder, "b.yaml", {"extends": "a.yaml"})
    (folder / "broken.yaml").write_text("name: [\n")
    (folder / "object.yaml").write_text("name: !!python/object/apply:os.system ['touch x']\n")
    (folder / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(InputError) as refused:
        child(folder, **blocks)
    assert "\n" not in str(refused.value)
    assert [part for part in expected if part not in str(refused.value)] == [], str(refused.value)


def test_one_scan_serves_every_scene_that_has_none(folder: Path) -> None:
    scenes = {
        "with": {"kind": "uniform", "materials": ["WS2"], "scan": {"shape": [3, 4], "step_A": 5}},
        "without": {"kind": "uniform", "materials": ["WS2"]},
    }
    scan = {"shape": [8, 8], "step_A": 7}
    found = child(folder, scan=scan, scenes=scenes)
    assert found.scenes["with"].scan.shape == (3, 4)
    assert (found.scenes["without"].scan.shape, found.scenes["without"].scan.step_A) == ((8, 8), 7)
    # Filled in, it is said once a scene: a resolved config means the same without it.
    assert "scan" not in yaml.safe_load(dump(found))
    assert parse(yaml.safe_load(dump(found))).scenes == found.scenes
    # It is a block like others: a child gives a size of its own to its parent's scenes.
    parent = {**GOOD, "scan": scan, "scenes": scenes}
    written(folder, "sized.yaml", parent)
    small = load(
        written(
            folder,
            "small.yaml",
            {"extends": "sized.yaml", "name": "small", "scan": {"shape": [2, 2], "step_A": 28}},
        )
    )
    assert small.scenes["without"].scan.shape == (2, 2)
    assert small.scenes["with"].scan.shape == (3, 4)
    with pytest.raises(InputError, match=r"scan\.shape"):
        child(folder, scan={"shape": [1, 1]}, scenes=scenes)


def test_a_child_takes_no_name(folder: Path) -> None:
    path = written(folder, "child.yaml", {"extends": "good.yaml"})
    with pytest.raises(InputError, match=r"child\.yaml: name: field required"):
        load(path)


def test_snakemakes_config_is_that_of_the_file(folder: Path) -> None:
    path = written(folder, "child.yaml", {"extends": "good.yaml", "name": "child"})
    assert from_snakemake([path], {}) == load(path)
    assert from_snakemake([str(path)], {}) == load(path)


def test_what_snakemake_sets_takes_the_place_of_the_files_blocks(folder: Path) -> None:
    path = written(folder, "child.yaml", {"extends": "good.yaml", "name": "child"})
    seeds = {"test": ["3", "4"], "tune": []}  # Snakemake gives numbers inside as text
    found = from_snakemake([path], {"name": "other", "seeds": seeds})
    assert found == parse({**GOOD, "name": "other", "seeds": {"test": [3, 4], "tune": []}})
    found = from_snakemake([path], {"methods": {"zero": "inherit"}})
    assert list(found.methods) == ["zero"]
    assert found.name == "child"


@pytest.mark.parametrize(
    ("names", "overrides", "expected"),
    [
        ([], {}, ["--configfile: got none", "expected one file"]),
        (["good.yaml", "twice.yaml"], {}, ["good.yaml, ", "twice.yaml; expected one file"]),
        (["twice.yaml"], {}, ["twice.yaml: line 2", "'name' is given twice"]),
        (["nowhere.yaml"], {}, ["nowhere.yaml", "No such file"]),
        (
            ["good.yaml"],
            {"sead": 1},
            ["good.yaml with --config sead: sead: unknown key", "'seeds'"],
        ),
        (["good.yaml"], {"methods": {"zer": "inherit"}}, ["methods.zer", "did you mean 'zero'?"]),
    ],
)
def test_what_snakemake_may_not_give(
    names: list[str], overrides: dict[str, Any], expected: list[str], folder: Path
) -> None:
    (folder / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(InputError) as refused:
        from_snakemake([folder / name for name in names], overrides)
    assert [part for part in expected if part not in str(refused.value)] == [], str(refused.value)
