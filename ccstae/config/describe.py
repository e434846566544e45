"""What can be set, in words: every method and every kind of scene, with defaults and meanings, from
the settings models themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter

from ccstae.config.base import models
from ccstae.config.methods import modules, settings, tried
from ccstae.config.problem import KINDS


def methods() -> str:
    """Every method of this package."""
    lines: list[str] = []
    for method in modules():
        lines += described(method, settings(method))
        for name, values in tried(method).items():
            lines.append(f"    tune: true tries {name}: {as_yaml(values)}")
    return "\n".join(lines)


def scenes() -> str:
    """Every kind of scene."""
    lines: list[str] = []
    for kind, model in KINDS.items():
        lines += described(kind, model)
    return "\n".join(lines)


def described(title: str, model: type[BaseModel], indent: str = "") -> Iterator[str]:
    """Lines of a settings model: the first paragraph of its docstring, then every setting with its
    default and what it means, and those inside it.
    """
    first_paragraph = (model.__doc__ or "").strip().split("\n\n")[0]
    yield f"{indent}{title}: {' '.join(first_paragraph.split())}"
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default {as_yaml(field.default)}"
        meaning = " ".join((field.description or "").split())
        yield f"{indent}    {name} ({default}){': ' if meaning else ''}{meaning}"
        for inner in models(field.annotation):
            yield from described(name, inner, indent + "        ")


def as_yaml(default: object) -> str:
    """A default as it would stand in a config."""
    return (
        yaml.safe_dump(TypeAdapter(Any).dump_python(default, mode="json"), default_flow_style=True)
        .removesuffix("\n...\n")
        .strip()
    )
