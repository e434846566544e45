"""The configs that the project brings, filled in, and the schema that editors complete them by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ccstae.config import materials, methods
from ccstae.config.run import dump, load
from ccstae.config.schema import schema

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_resolves_to_its_golden_copy(path: Path) -> None:
    assert dump(load(path)) == (GOLDEN / path.name).read_text(), (
        f"where that is meant: ccstae config resolve {path.relative_to(ROOT)} "
        f"--out tests/config/golden/{path.name}"
    )


def test_every_golden_copy_is_of_a_shipped_config() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path.name for path in CONFIGS}


def test_a_resolved_config_names_its_materials_and_extends_nothing() -> None:
    for path in GOLDEN.iterdir():
        data = yaml.safe_load(path.read_text())
        used = {name for scene in data.get("scenes", {}).values() for name in scene["materials"]}
        assert set(data.get("materials", {})) == used
        assert "extends" not in data


def test_every_material_of_the_package_says_where_its_numbers_come_from() -> None:
    assert list(materials.of_the_package()) == ["WS2", "WSe2", "MoS2", "MoSe2", "graphene", "hBN"]
    for material in materials.of_the_package().values():
        assert material.source
        assert material.layer_distance_A is not None


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], bool]] = {
    "nothing": (lambda data: None, True),
    "a setting": (lambda data: data["methods"].update(com={"settings": {"threshold": 0.1}}), True),
    "a setting that the method lacks": (
        lambda data: data["methods"].update(com={"settings": {"treshold": 0.1}}),
        False,
    ),
    "a setting of the method that is named": (
        lambda data: data["methods"].update(
            com={"method": "template", "settings": {"upsample": 8}}
        ),
        True,
    ),
    "a setting that the method that is named lacks": (
        lambda data: data["methods"].update(
            com={"method": "template", "settings": {"threshold": 0.1}}
        ),
        False,
    ),
    "a setting out of bounds": (
        lambda data: data["methods"].update(mine={"method": "com", "settings": {"iterations": 0}}),
        False,
    ),
    "any setting of a program": (
        lambda data: data["methods"].update(com={"command": "a", "settings": {"b": 1}}),
        True,
    ),
    "a method that is not there": (
        lambda data: data["methods"].update(mine={"method": "con"}),
        False,
    ),
    "one block short": (lambda data: data.pop("noise"), False),
    "a block of the parent": (
        lambda data: (data.pop("noise"), data.update(extends="default.yaml")),
        True,
    ),
    "no name": (lambda data: (data.pop("name"), data.update(extends="default.yaml")), False),
    "an item of the parent": (lambda data: data["scenes"].update(other="inherit"), True),
    "another word for it": (lambda data: data["scenes"].update(other="inherits"), False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_schema_tells_good_from_bad(edit: str) -> None:
    change, good = EDITS[edit]
    data = yaml.safe_load((ROOT / "config" / "ci.yaml").read_text())
    change(data)
    assert SCHEMA.is_valid(data) is good


def test_the_schema_has_every_setting_of_every_method_on_one_line() -> None:
    definitions = schema()["$defs"]
    for method in methods.modules():
        model = methods.settings(method)
        assert set(definitions[model.__name__]["properties"]) == set(model.model_fields)
    text = json.dumps(schema())
    assert "The trench round the probe" in text
    assert "\\n" not in text
