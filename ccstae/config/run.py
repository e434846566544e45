"""The run configuration: reads and checks one YAML file, and says in one line what is wrong with a
bad one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ccstae.config import materials, methods
from ccstae.config.base import Id, Settings
from ccstae.config.extends import with_blocks, with_parent
from ccstae.config.levels import Level, Noise
from ccstae.config.materials import Material
from ccstae.config.methods import AnyMethod, is_of_stage
from ccstae.config.microscope import Microscope, Simulation
from ccstae.config.plain_yaml import read_file, read_yaml
from ccstae.config.problem import first_problem
from ccstae.config.scans import RecordedScan
from ccstae.config.scenes import AnyScene, Scan
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


def _none(block: Any) -> bool:
    """Whether a block has no items, and is left out of a resolved config."""
    return not block


class Config(Settings):
    """A run of the benchmark."""

    name: Id
    device: Device = "auto"
    microscope: Microscope = Microscope()
    simulation: Simulation = Simulation()
    materials: dict[Id, Material] = Field({}, min_length=1, exclude_if=_none)
    """Added to those of the package, or in place of the one with the same id. After reading: those
    that the scenes use.
    """
    scan: Scan | None = Field(None, exclude=True)
    """Of the scenes that give none of their own: one size for all of them."""
    scenes: dict[Id, AnyScene] = Field({}, min_length=1, exclude_if=_none)
    noise: dict[Id, Noise] = Field({}, min_length=1, exclude_if=_none)
    scans: dict[Id, RecordedScan] = Field({}, min_length=1, exclude_if=_none)
    """Scans that were recorded, beside scenes or alone: mapped, and held against themselves."""
    seeds: Seeds = Seeds()
    methods: dict[Id, AnyMethod] = Field(min_length=1)
    keep_counts: bool = False
    """Keep the noisy counts after the maps are made."""
    chunk_positions: int = Field(16384, ge=1)
    """Scans of more positions are mapped in blocks of about as many, each a job of its own."""
    throughput: str | None = None
    """A noise level, by its name, at which every method is timed anew on the first scene: on one
    core and on all, taking turns.
    """

    @model_validator(mode="before")
    @classmethod
    def _scan_of_scenes(cls, data: Any) -> Any:
        """Scenes without a scan get that of the run."""
        if not isinstance(data, dict) or data.get("scan") is None:
            return data
        scenes = data.get("scenes")
        if not isinstance(scenes, dict):
            return data
        filled = {
            name: {"scan": data["scan"], **scene} if isinstance(scene, dict) else scene
            for name, scene in scenes.items()
        }
        return {**data, "scenes": filled}

    @model_validator(mode="after")
    def _something_to_map(self) -> Self:
        if not self.scenes and not self.scans:
            raise ValueError("expected scenes, with noise, or scans")
        if bool(self.scenes) != bool(self.noise):
            raise ValueError("expected scenes and noise, each with the other")
        if both := set(self.scenes) & set(self.scans):
            raise ValueError(f"scenes and scans share the id {min(both)}")
        return self

    @model_validator(mode="after")
    def _levels_differ_by_name(self) -> Self:
        by_name: dict[str, Level] = {}
        for noise in self.noise.values():
            for level in noise.levels:
                if by_name.setdefault(level.name, level) != level:
                    raise ValueError(
                        f"noise: two levels would share the name {level.name}: expected "
                        f"backgrounds 0.01 apart, doses to 6 digits"
                    )
        return self

    @property
    def levels(self) -> list[Level]:
        """All levels, each once, in the order of the config."""
        by_name: dict[str, Level] = {}
        for noise in self.noise.values():
            for level in noise.levels:
                by_name.setdefault(level.name, level)
        return list(by_name.values())

    @property
    def scored(self) -> dict[str, AnyScene]:
        """The scenes that are scored; InputError where all are for tuning and there is no scan."""
        scored = {scene_id: scene for scene_id, scene in self.scenes.items() if not scene.tune}
        if not scored and not self.scans:
            raise InputError("scenes: every one has tune: true; expected one to score")
        return scored

    @property
    def tuning(self) -> dict[str, AnyScene]:
        """The scenes that settings are chosen on."""
        return {scene_id: scene for scene_id, scene in self.scenes.items() if scene.tune}

    @property
    def mapping_scans(self) -> list[str]:
        """The rows of `methods` that map scans: all but those that need truth."""
        return [row_id for row_id in self.methods if not self.control(row_id)]

    def of_scene(self, scene_id: str) -> Config:
        """This config with the microscope that looks at a scene: nuisances of the scene's own take
        the place of the microscope's.
        """
        own = self.scenes[scene_id].nuisances if scene_id in self.scenes else None
        if own is None:
            return self
        microscope = self.microscope.model_copy(update={"nuisances": own})
        return self.model_copy(update={"microscope": microscope})

    def level(self, name: str) -> Level:
        """The noise level of this name; InputError where the config has none."""
        for level in self.levels:
            if level.name == name:
                return level
        raise InputError(unknown("noise level", name, [level.name for level in self.levels]))

    def method_settings(self, row_id: str) -> BaseModel | None:
        """The validated settings of a row of `methods`; None for an outside command or a positive
        control. InputError on bad ones.
        """
        row = self.methods[row_id]
        if row.command is not None or self.control(row_id):
            return None
        return checked_settings(row.method or row_id, row.settings, f"methods.{row_id}.settings")

    def control(self, row_id: str) -> str | None:
        """Which positive control a row of `methods` is, of `methods.CONTROLS`; None for others."""
        row = self.methods[row_id]
        name = row.method or row_id
        return name if row.command is None and name in methods.CONTROLS else None

    def with_settings(self, row_id: str, settings: dict[str, Any]) -> Config:
        """This config with other settings of one row of `methods`, and of its stages where they are
        called `STAGE.SETTING`; InputError where a stage does not take them.
        """
        row = self.methods[row_id].with_settings(settings, f"methods.{row_id}")
        return self.model_copy(update={"methods": {**self.methods, row_id: row}})

    def tried(self, row_id: str) -> dict[str, list[Any]]:
        """The values that a search tries of each setting of a row of `methods`; nothing for one
        that is not tuned.
        """
        row = self.methods[row_id]
        if row.tune is True:
            own = row.command is None and not self.control(row_id)
            of_method = methods.tried(row.method or row_id) if own else {}
            return of_method | row.tried_of_stages()
        return row.tune or {}

    def begin(self, row_id: str) -> dict[str, Any]:
        """The settings that a search of a row of `methods` begins with: those of the method, every
        default filled in, and those of its stages that are searched.
        """
        row, settings = self.methods[row_id], self.method_settings(row_id)
        own = row.settings if settings is None else settings.model_dump(mode="json")
        return own | {name: row.of_stage(name) for name in self.tried(row_id) if is_of_stage(name)}

    def goes_on_from(self, row_id: str) -> str | None:
        """The row of `methods` whose map a row goes on from, so that no pattern is mapped for it:
        one that differs in `smooth` alone, or one of the method whose answers this one pools, all
        else alike. None where there is none, or where the settings are searched.
        """
        row = self.methods[row_id]
        if row.smooth is not None:
            if not all(name.startswith("smooth.") for name in self.tried(row_id)):
                return None
            wanted = row.named(row_id).model_copy(update={"smooth": None, "tune": False})
        else:
            own = row.command is None and not self.control(row_id) and not row.tune
            before = methods.goes_on_from(row.method or row_id) if own else None
            if before is None:
                return None
            wanted = row.model_copy(update={"method": before})
        alike = (name for name, other in self.methods.items() if other.named(name) == wanted)
        return next(alike, None)


def load(path: Path | str) -> Config:
    """Read and check a config file, with what it takes from its parent.

    Args:
        path: a YAML file.

    Raises:
        InputError: says file, place, value and what was expected, in one line.
    """
    path = Path(path)
    return parse(read_file(path), str(path), path.parent)


def read(config: str) -> Config:
    """The config that a command line names.

    Args:
        config: a YAML file, or `-` for the same on standard input; what that extends is looked for
            from the current folder.

    Raises:
        InputError: as `load`.
    """
    if config != "-":
        return load(config)
    where = "config on standard input"
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: is not text: {error.reason}; expected YAML") from None
    return parse(read_yaml(text, where), where)


def parse(data: Any, where: str = "config", folder: Path = Path()) -> Config:
    """Check a config given as plain data.

    Args:
        data: a mapping of settings, as a YAML file gives it.
        where: what the config is, for messages: its file's name.
        folder: the folder that the path of `extends` starts from.

    Returns:
        The config with every default filled in, and the materials that its scenes use.

    Raises:
        InputError: as `load`.
    """
    return _checked(with_parent(_mapping(data, where), where, folder), where)


def from_snakemake(configfiles: Sequence[Path | str], overrides: Mapping[str, Any]) -> Config:
    """The config of a Snakemake run, read by this reader and not by Snakemake's.

    Args:
        configfiles: what `--configfile` names, or the Snakefile: one file.
        overrides: what `--config` sets. Each block takes the place of the file's, as that of a
            child takes the place of its parent's, and `inherit` works alike.

    Raises:
        InputError: not one file; else as `load`.
    """
    if len(configfiles) != 1:
        raise InputError(
            f"--configfile: got {', '.join(map(str, configfiles)) or 'none'}; expected one file, "
            f"which may take blocks from another by extends"
        )
    path = Path(configfiles[0])
    data = with_parent(_mapping(read_file(path), str(path)), str(path), path.parent)
    if not overrides:
        return _checked(data, str(path))
    where = f"{path} with --config {' '.join(map(str, overrides))}"
    return _checked(with_blocks(overrides, data, where, str(path)), where)


def dump(config: Config) -> str:
    """The whole config, defaults filled in, as YAML that `load` reads back."""
    return yaml.dump(filled_in(config), Dumper=yaml.CSafeDumper, sort_keys=False)


def filled_in(config: Config) -> dict[str, Any]:
    """The whole config, defaults filled in, as plain data."""
    data = config.model_dump(mode="json")
    for row_id in config.methods:
        settings = config.method_settings(row_id)
        if settings is not None:
            data["methods"][row_id]["settings"] = settings.model_dump(mode="json")
        data["methods"][row_id]["tune"] = config.tried(row_id) or False
    return data


def _mapping(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping of settings, got {type(data).__name__}")
    return data


def _checked(data: dict[str, Any], where: str) -> Config:
    """The config of plain data in which nothing is left to inherit."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error, Config)}") from None
    config = config.model_copy(update={"materials": _used_materials(config, where)})
    _check_references(config, where)
    return config


def _used_materials(config: Config, where: str) -> dict[str, Material]:
    """The materials that the scenes use, the config's own before the package's."""
    known = {**materials.of_the_package(), **config.materials}
    used = set()
    for scene_id, scene in config.scenes.items():
        for name in scene.materials:
            if name not in known:
                raise InputError(
                    f"{where}: scenes.{scene_id}.materials: {unknown('material', name, known)}"
                )
            used.add(name)
    return {name: material for name, material in known.items() if name in used}


def _check_references(config: Config, where: str) -> None:
    """Every level, material and method that is named is there, and every search can be made."""
    for scan_id, scan in config.scans.items():
        ours = materials.of_the_package()
        if scan.material is not None and scan.material not in ours:
            raise InputError(
                f"{where}: scans.{scan_id}.material: {unknown('material', scan.material, ours)}"
            )
    levels = [level.name for level in config.levels]
    if config.throughput is not None and config.throughput not in levels:
        raise InputError(
            f"{where}: throughput: {unknown('noise level', config.throughput, levels)}"
        )
    for row_id, row in config.methods.items():
        if config.control(row_id):
            if row.settings or row.tune or row.denoise or row.smooth:
                raise InputError(
                    f"{where}: methods.{row_id}: is a positive control, with truth in hand; "
                    f"expected no settings, search or stages"
                )
        elif row.command is None:
            name = row.method or row_id
            known = [*methods.modules(), *methods.CONTROLS]
            if name not in known:
                raise InputError(
                    f"{where}: methods.{row_id}: {unknown('method', name, known)}, "
                    "or give a command"
                )
            checked_settings(name, row.settings, f"{where}: methods.{row_id}.settings")
        if row.tune:
            _check_tuning(config, row_id, where)


def _check_tuning(config: Config, row_id: str, where: str) -> None:
    """A search has values to try, that the method takes, and counts to try them on that are never
    scored.
    """
    if config.scans:
        raise InputError(
            f"{where}: methods.{row_id}.tune: settings are searched where there is truth, and "
            f"scans have none; expected no search in a config with scans"
        )
    tried = config.tried(row_id)
    if not tried:
        raise InputError(
            f"{where}: methods.{row_id}.tune: no settings to try; expected a mapping of settings "
            f"to lists of values"
        )
    if not config.tuning or not config.seeds.tune:
        raise InputError(
            f"{where}: methods.{row_id}.tune: expected a scene with tune: true and a seed in "
            f"seeds.tune to choose settings on"
        )
    row, place = config.methods[row_id], f"{where}: methods.{row_id}.tune"
    for setting, values in tried.items():
        for value in values:
            given = row.with_settings({**row.settings, setting: value}, place)
            if row.command is None:
                checked_settings(row.method or row_id, given.settings, place)


def checked_settings(method: str, settings: dict[str, Any], where: str) -> BaseModel:
    """The settings of a method of this package, defaults filled in; InputError on bad ones, with
    `where` in front.
    """
    model = methods.settings(method)
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{where}.{first_problem(error, model)}") from None
