"""What each stage of a run depends on: the settings it uses, and the source files behind it.

The workflow runs a job anew when either changes and leaves it alone otherwise. A job gets its
narrowed config and nothing else, so it cannot use a setting that the workflow does not watch.
"""

from __future__ import annotations

import hashlib
import math
import os
from functools import cache
from pathlib import Path

import yaml

from ccstae.config.levels import Noise
from ccstae.config.methods import Method, modules
from ccstae.config.microscope import Microscope, Simulation
from ccstae.config.neighbours import STAGES
from ccstae.config.run import Config, Seeds, filled_in
from ccstae.config.scans import RecordedScan
from ccstae.machine.sources import made_from, module_names

_PACKAGE = Path(__file__).parents[1]
# The modules that each stage starts in.
_STARTS_IN: dict[str, tuple[str, ...]] = {
    "fetch": ("ccstae.io.fetched",),
    "import": ("ccstae.acquisition.importing",),
    "calibrate": ("ccstae.acquisition.calibration", "ccstae.reporting.figures.calibration"),
    "simulate": ("ccstae.simulation.simulate",),
    "truth": ("ccstae.simulation.truth",),
    "noise": ("ccstae.simulation.noise",),
    "map": ("ccstae.methods.run",),
    "tune": ("ccstae.evaluation.tuning",),
    "control": ("ccstae.evaluation.controls",),
    "precision": ("ccstae.evaluation.precision",),
    "score": ("ccstae.evaluation.score",),
    "throughput": ("ccstae.evaluation.throughput",),
    "published": ("ccstae.evaluation.published",),
    "tables": ("ccstae.reporting.tables",),
    "figures": ("ccstae.reporting.figures.catalogue",),
    "report": ("ccstae.reporting.report",),
    "provenance": ("ccstae.pipeline.provenance",),
    "regress": ("ccstae.gate.compare",),
}
# The modules of the stages round a method.
_STAGES_IN = {name: f"ccstae.methods.neighbours.{name}" for name in STAGES}
# What a narrowed config says where the job has no use for the setting.
_UNUSED = {
    "noise": {"clean": Noise(electrons=(math.inf,))},
    "seeds": Seeds(test=(0,), tune=()),
    "methods": {"zero": Method()},
    "device": "auto",
    "throughput": None,
    "scans": {},
}


def narrow(
    config: Config,
    stage: str,
    scene: str | None = None,
    level: str | None = None,
    seed: int | None = None,
    method: str | None = None,
    scan: str | None = None,
) -> Config:
    """The config of one job, with only the settings that the job uses.

    `simulate` and `truth` are for one scene (the truth for every level), `noise` for one scene,
    level and seed, `map` and `control` for one method as well; `tune` is for one level and method
    on the tuning scenes. `fetch` is for one recorded scan, `map` and `precision` for one scan and
    method; what a scan is imported and calibrated with comes as words of the command line. The
    stages after them see the whole config.

    Args:
        config: of the run.
        stage: one of those that the workflow runs.
        scene: which of the scenes, where the job is for one.
        level: name of the noise level, where the job is for one.
        seed: of the noise, where the job is for one.
        method: which of the methods, where the job is for one.
        scan: which of the recorded scans, where the job is for one.

    Raises:
        InputError: for a noise level that the config lacks.
        KeyError: for a scene or method that it lacks.
    """
    entries: dict[str, object] = {"keep_counts": False, "chunk_positions": 16384}
    if scene is not None or stage == "tune":
        # Whether a scene is for tuning, and what others published of it, is nothing to the jobs
        # that make it.
        scenes = config.tuning
        if scene is not None:
            apart: dict[str, object] = {"tune": False}
            if config.scenes[scene].kind == "labelled":
                apart["published_errors"] = None
            scenes = {scene: config.scenes[scene].model_copy(update=apart)}
        # Where a material's numbers come from is for people.
        used = {name for settings in scenes.values() for name in settings.materials}
        materials = {
            name: m.model_copy(update={"source": ""})
            for name, m in config.materials.items()
            if name in used
        }
        entries |= _UNUSED | {"scenes": scenes, "materials": materials}
    if scan is not None:  # which comes as a file
        file = config.scans[scan]
        link = {"path": file.path, "url": file.url, "sha256": file.sha256}
        given = RecordedScan.model_validate(link if stage == "fetch" else {"path": scan})
        entries |= _UNUSED | {
            "scans": {scan: given},
            "scenes": {},
            "noise": {},
            "materials": {},
            "microscope": Microscope(),
            "simulation": Simulation(),
        }
    if stage == "truth":
        entries["noise"] = config.noise
    if level is not None:
        one = config.level(level)
        noise = Noise(background=(one.background,), electrons=(one.electrons,))
        entries["noise"] = {"level": noise}
    if seed is not None:
        entries["seeds"] = Seeds(test=(seed,), tune=())
    if method is not None:
        entry = config.methods[method]
        if stage == "tune":
            tune = config.seeds.tune
            entries["seeds"] = Seeds(test=(max(tune, default=0) + 1,), tune=tune)
        else:  # what was chosen comes as a file
            entry = entry.model_copy(update={"tune": False})
        rows = {method: entry}
        mapped = config.goes_on_from(method)
        if stage == "tune" and mapped is not None:  # whose maps the search goes on from
            rows[mapped] = config.methods[mapped]
        entries |= {"methods": rows, "device": config.device}
    return config.model_copy(update=entries)


def one_line(config: Config) -> str:
    """A config as one line of YAML, every default filled in."""
    return yaml.dump(
        filled_in(config),
        Dumper=yaml.CSafeDumper,  # in C: of hundreds of jobs, the other takes most of the planning
        default_flow_style=True,
        sort_keys=False,
        width=2**31 - 1,  # the most that it takes: nothing is broken into lines
    ).strip()


def sources(config: Config, stage: str, method: str | None = None) -> list[str]:
    """The source files behind a stage: its module, what that imports from this package, and so on.

    For `simulate` the structure files of the materials too; for `map`, `tune` and `precision` the
    files behind `method` and its stages; for a program from outside, the files that its command
    names and the modules beside them that they import.

    Args:
        config: of the job.
        stage: one of those that the workflow runs.
        method: which of the methods, for `map`, `tune` and `precision`.

    Returns:
        Paths, those of the package from the working folder.
    """
    if method is None:
        files = made_from(*_STARTS_IN[stage])
        if stage == "report":
            templates = (_PACKAGE / "reporting" / "templates").iterdir()
            files += sorted(os.path.relpath(template) for template in templates)
        if stage == "simulate":
            materials = config.materials.values()
            files += sorted({str(m.structure) for m in materials if m.structure is not None})
        return files
    entry = config.methods[method]
    starts_in = [*_STARTS_IN[stage]]
    starts_in += [_STAGES_IN[name] for name in STAGES if getattr(entry, name) is not None]
    commands = [entry.command, getattr(entry.denoise, "command", None)]
    if entry.command is None:
        starts_in.append(modules()[entry.method or method])
    named = [
        Path(word)
        for command in commands
        for word in (command or "").split()
        if Path(word).is_file()
    ]
    beside = {
        path.with_name(f"{name}.py")
        for path in named
        if path.suffix == ".py"
        for name in module_names(path)
    }
    outside = named + sorted(path for path in beside if path.is_file())
    return made_from(*starts_in) + [str(path) for path in outside]


def digest(files: list[str]) -> str:
    """One word for what these files are called and hold: another one where any of them changes."""
    held = "".join(f"{file} {_content(file)}\n" for file in files)
    return hashlib.sha256(held.encode()).hexdigest()[:16]


@cache
def _content(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
