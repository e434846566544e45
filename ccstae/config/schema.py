"""The JSON schema of configs, by which editors complete and check them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ccstae.config import methods
from ccstae.config.extends import EXTENDS, INHERIT, ITEM_OF
from ccstae.config.run import Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema of a config file: of `Config`, with `extends` and `inherit`, and the settings of
    every method where they belong.
    """
    settings = {method: methods.settings(method) for method in methods.modules()}
    used: list[type[BaseModel]] = [Config, *settings.values()]
    refs, whole = models_json_schema([(model, "validation") for model in used])
    definitions = whole["$defs"]
    config = definitions.pop(Config.__name__)
    settings_of = {method: refs[model, "validation"] for method, model in settings.items()}
    _add_method_settings(config, definitions["Method"], settings_of)
    _add_extends(config)
    made: dict[str, Any] = _on_one_line({"$schema": _DIALECT, **config, "$defs": definitions})
    return made


def _add_method_settings(
    config: dict[str, Any], row: dict[str, Any], settings_of: dict[str, dict[str, Any]]
) -> None:
    """The settings of a row are those of its `method`; without one, and without a command, those of
    the method that its id names.
    """
    row["properties"]["method"] |= {
        "anyOf": [{"enum": [*settings_of, *methods.CONTROLS]}, {"type": "null"}]
    }
    row["allOf"] = [
        {
            "if": {"required": ["method"], "properties": {"method": {"const": method}}},
            "then": {"properties": {"settings": settings}},
        }
        for method, settings in settings_of.items()
    ]
    config["properties"]["methods"]["properties"] = {
        method: {
            "if": {"anyOf": [{"required": ["method"]}, {"required": ["command"]}]},
            "else": {"properties": {"settings": settings}},
        }
        for method, settings in settings_of.items()
    }


def _add_extends(config: dict[str, Any]) -> None:
    """A child gives what it does not take from its parent."""
    own = [block for block in config["required"] if block != "name"]
    config["required"] = ["name"]
    config["anyOf"] = [
        {"required": [EXTENDS]},
        {"required": [*own, "scenes", "noise"]},
        {"required": [*own, "scans"]},
    ]
    extends = {
        "type": "string",
        "description": "Path of a parent config, from the folder of this one: blocks that are not "
        "given here are the parent's.",
    }
    config["properties"] = {EXTENDS: extends, **config["properties"]}
    for block, item in ITEM_OF.items():
        inherit = {"const": INHERIT, "description": f"The parent's {item} with this id."}
        patterns = config["properties"][block]["patternProperties"]
        for pattern, given in patterns.items():
            patterns[pattern] = {"anyOf": [given, inherit]}


def _on_one_line(part: Any) -> Any:
    """Descriptions without the line breaks of their docstrings."""
    if isinstance(part, list):
        return [_on_one_line(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    return {
        key: " ".join(value.split())
        if key == "description" and isinstance(value, str)
        else _on_one_line(value)
        for key, value in part.items()
    }
