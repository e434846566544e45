"""What is wrong with settings that pydantic refuses, in one line: place, value and what was
expected.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ccstae.config.base import models
from ccstae.config.scenes import AnyScene
from ccstae.errors import unknown


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem as `path: what (value), expected ...`, with the nearest valid key for an
    unknown one.
    """

    # A misspelt key says more than that the right one is missing.
    # Where a search is given as a mapping, that it is no boolean says nothing.
    def aside(problem: Any) -> bool:
        return problem["type"] == "missing" or (
            problem["type"].startswith("bool") and isinstance(problem["input"], dict)
        )

    problem = min(error.errors(), key=aside)
    # A scene's kind, by which its model is chosen, and which of two types a search may have, are
    # parts of where pydantic finds a problem and not of the file.
    loc = problem["loc"]
    place = ".".join(
        str(part)
        for i, part in enumerate(loc)
        if not (
            (i == 2 and loc[0] == "scenes" and part in KINDS)
            or (i == 3 and (loc[0], loc[2]) == ("methods", "tune"))
        )
    )
    if problem["type"] == "union_tag_invalid":
        return f"{place}.kind: {unknown('kind', problem['ctx']['tag'], KINDS)}"
    if problem["type"] == "union_tag_not_found":
        return f"{place}.kind: missing; expected one of {', '.join(KINDS)}"
    if problem["type"] == "extra_forbidden":
        return f"{place}: {unknown('key', str(loc[-1]), _keys_at(model, loc[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = repr(problem["input"])
    shown = (
        ""
        if problem["type"] == "missing"
        else f", got {value if len(value) <= 60 else value[:57] + '...'}"
    )
    return f"{place or 'top level'}: {message}{shown}"


def _keys_at(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """Field names of the settings model that lies at `loc` inside `model`."""
    found = models(model)
    for part in loc:
        below: list[type[BaseModel]] = (
            [KINDS[part]] if part in KINDS and KINDS[part] in found else []
        )
        for m in found:
            if part in m.model_fields:
                below += models(m.model_fields[part].annotation)
        found = below or found
    return sorted({name for m in found for name in m.model_fields})


KINDS: dict[Any, type[BaseModel]] = {
    get_args(m.model_fields["kind"].annotation)[0]: m
    for m in models(AnyScene)
    if "kind" in m.model_fields
}
