"""The run configuration: reads and checks one YAML file, and says in one line what is wrong with a
bad one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from ccstae.config import methods
from ccstae.config.base import Id, Settings
from ccstae.config.levels import Level, Noise
from ccstae.config.materials import Material
from ccstae.config.methods import AnyMethod
from ccstae.config.microscope import Microscope, Simulation
from ccstae.config.plain_yaml import read_yaml
from ccstae.config.problem import first_problem
from ccstae.config.scenes import AnyScene
from ccstae.errors import InputError, unknown
from ccstae.machine.device import Device

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Seeds(Settings):
    """Seeds of the noise. Scores come from `test`; `tune` is for choosing settings and never
    scored.
    """

    test: tuple[Seed, ...] = Field((1, 2), min_length=1)
    tune: tuple[Seed, ...] = (101,)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if len(set(self.test)) < len(self.test):
            raise ValueError("a seed is in test twice")
        if set(self.test) & set(self.tune):
            raise ValueError("a seed is in both test and tune")
        return self


class Config(Settings):
    """A run of the benchmark."""

    name: Id
    device: Device = "auto"
    microscope: Microscope = Microscope()
    simulation: Simulation = Simulation()
    materials: dict[Id, Material] = Field(min_length=1)
    scenes: dict[Id, AnyScene] = Field(min_length=1)
    noise: dict[Id, Noise] = Field(min_length=1)
    seeds: Seeds = Seeds()
    methods: dict[Id, AnyMethod] = Field(min_length=1)
    keep_counts: bool = False
    """Keep the noisy counts after the maps are made."""
    throughput: str | None = None
    """A noise level, by its name, at which every method is timed anew on the first scene: on one
    core and on all, taking turns.
    """

    @model_validator(mode="after")
    def _levels_differ_by_name(self) -> Self:
        named: dict[str, Level] = {}
        for level in (level for noise in self.noise.values() for level in noise.levels):
            if named.setdefault(level.name, level) != level:
                raise ValueError(
                    f"noise: two levels would share the name {level.name}: expected backgrounds "
                    f"0.01 apart, doses to 6 digits"
                )
        return self

    @property
    def levels(self) -> list[Level]:
        """All levels, each once, in the order of the config."""
        return list(
            {level.name: level for noise in self.noise.values() for level in noise.levels}.values()
        )

    @property
    def scored(self) -> dict[str, AnyScene]:
        """The scenes that are scored; InputError where all are for tuning."""
        found = {id: scene for id, scene in self.scenes.items() if not scene.tune}
        if not found:
            raise InputError("scenes: every one has tune: true; expected one to score")
        return found

    @property
    def tuning(self) -> dict[str, AnyScene]:
        """The scenes that settings are chosen on."""
        return {id: scene for id, scene in self.scenes.items() if scene.tune}

    def level(self, name: str) -> Level:
        for level in self.levels:
            if level.name == name:
                return level
        raise InputError(unknown("noise level", name, [level.name for level in self.levels]))

    def method_settings(self, id: str) -> BaseModel | None:
        """The validated settings of a method; None for an outside command. InputError on bad
        ones."""
        entry = self.methods[id]
        if entry.command is not None:
            return None
        return checked_settings(entry.method or id, entry.settings, f"methods.{id}.settings")

    def with_settings(self, id: str, settings: dict[str, Any]) -> Config:
        """This config with other settings of one method."""
        entry = self.methods[id].model_copy(update={"settings": settings})
        return self.model_copy(update={"methods": {**self.methods, id: entry}})

    def tried(self, id: str) -> dict[str, list[Any]]:
        """The values that a search tries of each setting of a method; nothing for one that is not
        tuned.
        """
        entry = self.methods[id]
        if entry.tune is True:
            return methods.tried(entry.method or id) if entry.command is None else {}
        return entry.tune or {}


def load(path: Path | str) -> Config:
    """Read and check a config file; InputError says file, place, value and what was expected, in
    one line.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; expected a YAML config file"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text: {error.reason} at byte {error.start}; expected a YAML config "
            f"file"
        ) from None
    return parse(read_yaml(text, str(path)), str(path))


def read(config: str) -> Config:
    """The config that a command line names: a file, or `-` for standard input."""
    if config != "-":
        return load(config)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(
            f"config on standard input: is not text: {error.reason}; expected YAML"
        ) from None
    return parse(read_yaml(text, "config on standard input"), "config on standard input")


def from_snakemake(configfiles: Sequence[Path | str], overrides: Mapping[str, Any]) -> Config:
    """The config of a workflow run: its files, each over the one before, and over them all what
    `snakemake --config` says. InputError as `load` raises it.
    """
    data: dict[str, Any] = {}
    for path in configfiles:
        data = _updated(data, read_yaml(Path(path).read_text(), str(path)))
    return parse(_updated(data, overrides), ", ".join(map(str, configfiles)))


def _updated(data: Any, over: Any) -> Any:
    if not (isinstance(data, Mapping) and isinstance(over, Mapping)):
        return over
    return {**data, **{key: _updated(data.get(key), value) for key, value in over.items()}}


def parse(data: Any, where: str = "config") -> Config:
    """Check a config given as plain data."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping of settings, got {type(data).__name__}")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error, Config)}") from None
    _check_references(config, where)
    return config


def dump(config: Config) -> str:
    """The whole config, defaults filled in, as YAML that `load` reads back."""
    data = config.model_dump(mode="json")
    for id in config.methods:
        settings = config.method_settings(id)
        if settings is not None:
            data["methods"][id]["settings"] = settings.model_dump(mode="json")
        data["methods"][id]["tune"] = config.tried(id) or False
    return yaml.safe_dump(data, sort_keys=False)


def _check_references(config: Config, where: str) -> None:
    levels = [level.name for level in config.levels]
    if config.throughput is not None and config.throughput not in levels:
        raise InputError(
            f"{where}: throughput: {unknown('noise level', config.throughput, levels)}"
        )
    for id, scene in config.scenes.items():
        for material in scene.materials:
            if material not in config.materials:
                raise InputError(
                    f"{where}: scenes.{id}.materials: "
                    f"{unknown('material', material, config.materials)}"
                )
    for id, entry in config.methods.items():
        if entry.command is None:
            name = entry.method or id
            if name not in methods.modules():
                raise InputError(
                    f"{where}: methods.{id}: {unknown('method', name, methods.modules())}, "
                    "or give a command"
                )
            checked_settings(name, entry.settings, f"{where}: methods.{id}.settings")
        if entry.tune:
            _check_tuning(config, id, where)


def _check_tuning(config: Config, id: str, where: str) -> None:
    """A search has values to try, that the method takes, and counts to try them on that are never
    scored.
    """
    tried = config.tried(id)
    if not tried:
        raise InputError(
            f"{where}: methods.{id}.tune: no settings to try; expected a mapping of settings to "
            f"lists of values"
        )
    if not config.tuning or not config.seeds.tune:
        raise InputError(
            f"{where}: methods.{id}.tune: expected a scene with tune: true and a seed in "
            f"seeds.tune to choose settings on"
        )
    entry = config.methods[id]
    if entry.command is None:
        for name, value in ((name, value) for name, values in tried.items() for value in values):
            checked_settings(
                entry.method or id, {**entry.settings, name: value}, f"{where}: methods.{id}.tune"
            )


def checked_settings(name: str, settings: dict[str, Any], where: str) -> BaseModel:
    """The settings of a method of this package, defaults filled in; InputError on bad ones, with
    `where` in front.
    """
    model = methods.settings(name)
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{where}.{first_problem(error, model)}") from None
