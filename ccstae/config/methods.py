"""The methods of this package, found by where they lie, and what can be set of them.

A method is a file `ccstae/methods/NAME.py` with a function `map_strain` and its settings, one
subclass of `MethodSettings`. One whose import takes long (torch takes seconds) is a folder
`ccstae/methods/NAME/` with `map_strain` in `method.py` and the settings in `settings.py`, so that a
config is read without it. Its id is NAME, with `-` for `_`. No list has to be kept.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ccstae.config.base import Id, Settings
from ccstae.config.neighbours import STAGES, TRIED, Denoise, Smooth
from ccstae.config.problem import first_problem
from ccstae.errors import InputError, unknown

_FOLDER = Path(__file__).parents[1] / "methods"
CONTROLS = ("oracle", "oracle-shape")
"""Positive controls by the name that a row gives as its `method`: their maps are made with what no
method may see (`ccstae.evaluation.controls`).
"""
_MAP_STRAIN = re.compile(r"^def map_strain\(", re.MULTILINE)


class MethodSettings(Settings):
    """What every method has."""

    device: Literal["auto", "cpu", "gpu"] | None = None
    """Overrides the run's `device` for this method."""


class Method(Settings):
    """One row of the tables: a method of this package with settings, or a program of your own."""

    method: Id | None = None
    """Which method runs; without it, the entry's id."""
    command: str | None = None
    """A program that reads a counts file and writes a map file. It runs without a shell, as trusted
    code.
    """
    environment: Id | None = None
    """The program's own Python environment, pinned in `envs/<environment>.lock`: `python` in its
    command is the one from there. A run goes on without such a program where it fails or its
    environment cannot be made; its map then holds no answer, and says why.
    """
    settings: dict[str, Any] = Field({})
    denoise: Denoise | None = None
    """A stage before the method: patterns averaged over neighbouring positions."""
    smooth: Smooth | None = None
    """A stage after the method: its map averaged over neighbouring positions."""
    tune: bool | dict[str, Annotated[list[Any], Field(min_length=1)]] = False
    """Search the best settings for each noise level: the values to try of each setting, or true for
    those the method lists itself. A setting of a stage is called `STAGE.SETTING`, such as
    `smooth.width_steps`.
    """
    time_limit_s: float = Field(3600.0, gt=0)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.command is not None and self.method is not None:
            raise ValueError("give method or command, not both")
        if self.command is not None and ("\0" in self.command or not self.command.strip()):
            raise ValueError(f"command is {self.command!r}: expected a program and its arguments")
        if self.environment is not None and self.command is None:
            raise ValueError(
                "environment goes with a command alone: the methods of this package share its own"
            )
        return self

    @property
    def by_blocks(self) -> bool:
        """Whether parts of a scan can be mapped apart: by programs from outside and by stages that
        see neighbours they cannot.
        """
        return self.command is None and self.denoise is None and self.smooth is None

    def named(self, row_id: str) -> Method:
        """The same row under any other id: with its method, where it has no command."""
        return self if self.command else self.model_copy(update={"method": self.method or row_id})

    def of_stage(self, name: str) -> Any:
        """The value of a setting `STAGE.SETTING`."""
        value: Any = self
        for part in name.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value

    def tried_of_stages(self) -> dict[str, list[Any]]:
        """The values that `tune: true` tries of the stages' settings."""
        stages = ((name, getattr(self, name)) for name in STAGES)
        return {
            f"{name}.{setting}": values
            for name, stage in stages
            if stage is not None
            for setting, values in TRIED[stage.kind].items()
        }

    def with_settings(self, settings: dict[str, Any], where: str) -> Method:
        """This row with other settings, and those called `STAGE.SETTING` in its stages.

        Raises:
            InputError: with `where` in front, for a stage that is not there or does not take them.
        """
        given = self.model_dump()
        given["settings"] = {k: v for k, v in settings.items() if not is_of_stage(k)}
        for name in filter(is_of_stage, settings):
            *path, last = name.split(".")
            inside: Any = given
            for part in path:
                inside = inside.get(part) if isinstance(inside, dict) else None
            known = [] if inside is None else [key for key in inside if key != "kind"]
            if not isinstance(inside, dict) or (last not in known and path[-1] != "settings"):
                raise InputError(f"{where}: {unknown('setting', name, known)}")
            inside[last] = settings[name]
        try:
            return type(self).model_validate(given)
        except ValidationError as error:
            raise InputError(f"{where}.{first_problem(error, type(self))}") from None


# `zero:` with nothing behind it is an entry with every default.
AnyMethod = Annotated[
    Method, BeforeValidator(lambda v: {} if v is None else v, json_schema_input_type=Method | None)
]


def is_of_stage(name: str) -> bool:
    """Whether a setting that is searched is one of a stage, `STAGE.SETTING`."""
    return name.split(".")[0] in STAGES and "." in name


@cache
def modules() -> dict[str, str]:
    """The module with `map_strain` of every method, by the method's id."""
    by_id = {}
    for path in sorted([*_FOLDER.glob("*.py"), *_FOLDER.glob("*/method.py")]):
        if _MAP_STRAIN.search(path.read_text()):
            parts = path.relative_to(_FOLDER).with_suffix("").parts
            by_id[parts[0].replace("_", "-")] = ".".join(("ccstae.methods", *parts))
    return by_id


def settings(method: str) -> type[MethodSettings]:
    """The settings model of a method: the one that its file defines."""
    module = _settings_module(method)
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    models = [
        value
        for value in classes
        if issubclass(value, MethodSettings) and value.__module__ == module.__name__
    ]
    if len(models) != 1:
        raise TypeError(f"{module.__name__}: expected one subclass of MethodSettings, got {models}")
    return models[0]


def tried(method: str) -> dict[str, list[Any]]:
    """The values that `tune: true` tries of a method's settings: its `TRIED`, or none."""
    values: dict[str, list[Any]] = getattr(_settings_module(method), "TRIED", {})
    return values


def goes_on_from(method: str) -> str | None:
    """The method whose answer another one goes on from: its `GOES_ON_FROM`, or none."""
    return getattr(_settings_module(method), "GOES_ON_FROM", None)


def _settings_module(method: str) -> ModuleType:
    module = modules()[method]
    return import_module(re.sub(r"\.method$", ".settings", module))
