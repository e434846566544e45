"""What a search of settings chose: one file a method and noise level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ccstae.config.base import Settings
from ccstae.config.plain_yaml import read_yaml
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.io.atomic import write_text


class Tuned(Settings):
    """The settings that a search chose for a method at a noise level, and their error in it."""

    method: str
    level: str
    settings: dict[str, Any]
    """The chosen ones, as they would stand in the config."""
    error: float = Field(ge=0)
    """Of the chosen settings: root mean square, over components, scenes and seeds, of rmse / bound
    in the interior.

    Of rmse at the noise-free level.
    """
    error_before: float = Field(ge=0)
    """The same of the settings that the search began with."""
    tried: int = Field(ge=1)
    """How many settings were run."""


def write_tuned(file: Path, chosen: Tuned) -> None:
    """Write what a search chose as YAML, whole or not at all.

    Raises:
        InputError: where the system takes no more of it.
    """
    write_text(file, yaml.safe_dump(chosen.model_dump(mode="json"), sort_keys=False))


def read_tuned(file: Path) -> Tuned:
    """Read and check what a search chose.

    Raises:
        InputError: where the file is missing or holds something else.
    """
    try:
        return Tuned.model_validate(read_yaml(Path(file).read_text(), str(file)))
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}; expected settings chosen by `ccstae tune`"
        ) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: {str(error).splitlines()[0]}; expected settings chosen by `ccstae tune`"
        ) from None


def apply_tuned(config: Config, method: str, file: Path) -> Config:
    """The config with the settings chosen for a method.

    Args:
        config: of the run.
        method: which of its methods.
        file: what a search chose for it.

    Raises:
        InputError: where the file is missing or unfit, or the settings are another method's.
    """
    chosen = read_tuned(file)
    if chosen.method != method:
        raise InputError(f"{file}: method is {chosen.method!r}; expected {method!r}")
    run = config.with_settings(method, chosen.settings)
    try:
        run.method_settings(method)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return run
