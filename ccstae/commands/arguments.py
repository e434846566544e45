"""Arguments that several commands take, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ccstae.errors import InputError, unknown

ConfigPath = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML config file; - reads standard input.")
]
Out = Annotated[Path, typer.Option(help="Where the product goes.")]
RunDir = Annotated[Path, typer.Option("--run", help="The run's folder, results/<name>.")]


def json_mapping(option: str, text: str) -> dict[str, Any]:
    """Settings as an option gives them; InputError where they are none."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: {text!r} is not valid JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(f"{option}: {text!r} is no mapping; expected one, as in a config")
    return given


def known(what: str, name: str, names: Iterable[str]) -> None:
    """InputError for an id that the config does not have."""
    if name not in names:
        raise InputError(unknown(what, name, names))
