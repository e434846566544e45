"""What is wrong with settings that pydantic refuses, in one line: place, value and what was
expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ccstae.config.base import models
from ccstae.config.neighbours import STAGES
from ccstae.config.scenes import AnyScene
from ccstae.errors import unknown


def _kinds(of: list[type[BaseModel]]) -> dict[Any, type[BaseModel]]:
    """Those settings models that are of a kind, by its name."""
    return {
        get_args(model.model_fields["kind"].annotation)[0]: model
        for model in of
        if "kind" in model.model_fields
    }


KINDS = _kinds(models(AnyScene))
"""The settings model of every kind of scene."""

MAX_VALUE_CHARACTERS = 60
"""Of a value that a message repeats."""


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem as `path: what, got value`, with the nearest valid key for an unknown one.

    Args:
        error: what pydantic refused.
        model: the settings model that refused it.
    """
    problem = min(error.errors(), key=_says_little)
    loc, kind = problem["loc"], problem["type"]
    place = _place(loc)
    if kind == "union_tag_invalid":
        known = _kinds(_models_at(model, loc))
        return f"{place}.kind: {unknown('kind', problem['ctx']['tag'], known)}"
    if kind == "union_tag_not_found":
        known = _kinds(_models_at(model, loc))
        return f"{place}.kind: missing; expected one of {', '.join(known)}"
    if kind == "extra_forbidden":
        keys = {name for inner in _models_at(model, loc[:-1]) for name in inner.model_fields}
        return f"{place}: {unknown('key', str(loc[-1]), keys)}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if kind != "missing":
        message += f", got {_shortened(repr(problem['input']))}"
    return f"{place or 'top level'}: {message}"


def _says_little(problem: Mapping[str, Any]) -> bool:
    """Whether any other problem says more: a misspelt key says more than that the right one is
    missing, and where a search is given as a mapping, that it is no boolean says nothing.
    """
    no_boolean = problem["type"].startswith("bool") and isinstance(problem["input"], dict)
    return problem["type"] == "missing" or no_boolean


def _place(loc: tuple[int | str, ...]) -> str:
    """Where in the file a problem lies.

    The kind of a scene or stage, by which pydantic chooses its model, and which of its two types a
    search has, are parts of `loc` that the file does not have.
    """
    parts = list(loc)
    if len(parts) > 2 and parts[0] == "scenes" and parts[2] in KINDS:
        del parts[2]
    elif len(parts) > 3 and parts[0] == "methods" and parts[2] in ("tune", *STAGES):
        del parts[3]
    elif len(parts) > 1 and parts[0] in STAGES:  # of a row by itself
        del parts[1]
    return ".".join(map(str, parts))


def _shortened(value: str) -> str:
    if len(value) <= MAX_VALUE_CHARACTERS:
        return value
    return value[: MAX_VALUE_CHARACTERS - 3] + "..."


def _models_at(model: Any, loc: tuple[Any, ...]) -> list[type[BaseModel]]:
    """The settings models that may lie at `loc` inside `model`."""
    here = models(model)
    for part in loc:
        below: list[type[BaseModel]] = []
        kinds = _kinds(here)
        if part in kinds:
            below.append(kinds[part])
        for outer in here:
            if part in outer.model_fields:
                below += models(outer.model_fields[part].annotation)
        here = below or here  # an id or an index leads to no other model
    return here
