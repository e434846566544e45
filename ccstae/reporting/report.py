"""The report of a run: one HTML file with everything in it, readable offline and on paper."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from ccstae.config.run import Config, dump
from ccstae.errors import InputError
from ccstae.evaluation import score
from ccstae.io import atomic, layout, tuned
from ccstae.io.maps import read_map
from ccstae.pipeline import provenance
from ccstae.reporting import display, tables
from ccstae.reporting.figures import catalogue as figures

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A figure with its bytes."""

    entry: figures.Entry
    data: str
    """PNG as base64."""


@dataclass(frozen=True)
class Used:
    """What a method ran with, over all its maps."""

    method: str
    settings: dict[str, str]
    """Settings as JSON text; the key says for which levels, empty for all."""
    devices: list[str]
    versions: str


@dataclass(frozen=True)
class Chosen:
    """What the search of a method's settings found."""

    method: str
    levels: dict[str, tuned.Tuned]
    """By the level's name for people."""
    names: list[str]
    """The settings that were searched."""


def write(config: Config, run_dir: Path, report_path: Path) -> None:
    """Write the report from a run's scores, maps, figures and benchmarks. InputError names what is
    missing.
    """
    run_dir = Path(run_dir)
    metrics = score.read(run_dir / layout.METRICS)
    made = {table.name: table for table in tables.load(config, run_dir / layout.METRICS)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["prose"] = prose
    made_by = provenance.collect(config, run_dir)
    text = environment.get_template("report.html.j2").render(
        config=config,
        facts=facts(config),
        tables=made,
        pictures=pictures(config, run_dir / layout.FIGURES),
        shown=display.level(*score.shown_level(metrics)),
        chosen=[
            _chosen(config, run_dir, method)
            for method, entry in config.methods.items()
            if entry.tune
        ],
        used=[_used(config, run_dir, method) for method in config.methods],
        resolved=dump(config),
        provenance={key: value for key, value in made_by.items() if key != "rules"},
        rules=made_by["rules"],
    )
    atomic.write_text(report_path, text)


def prose(text: str) -> markupsafe.Markup:
    """Text with what stands between backticks set as code, all of it escaped."""
    parts = [markupsafe.escape(part) for part in text.split("`")]
    return markupsafe.Markup("").join(
        markupsafe.Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts)
    )


def facts(config: Config) -> dict[str, str]:
    """The run in a few lines."""
    m = config.microscope
    pixels = f"{m.detector_px} x {m.detector_px}"
    backgrounds = sorted({one.background for one in config.levels})
    doses = sorted(
        {one.electrons for one in config.levels if math.isfinite(one.electrons)}, reverse=True
    )
    scenes = (
        f"{name}: {' and '.join(s.materials)}, {s.scan.shape[0]} x {s.scan.shape[1]} positions"
        for name, s in config.scored.items()
    )
    noise = (
        [f"w from {backgrounds[0]:g} to {backgrounds[-1]:g}"]
        if len(backgrounds) > 1
        else [f"w = {backgrounds[0]:g}"]
    )
    noise += [f"{', '.join(map(display.power, doses))} electrons per pattern"] if doses else []
    noise += ["noise-free"] if any(math.isinf(one.electrons) for one in config.levels) else []
    return {
        "Scenes": "; ".join(scenes),
        "Microscope": f"{m.energy_keV:g} kV, {m.semiangle_mrad:g} mrad, "
        f"{pixels} pixels of {m.pixel_size_inv_A:g} 1/Å",
        "Noise levels": f"{len(config.levels)}: {', '.join(noise)}",
        "Seeds": ", ".join(map(str, config.seeds.test)),
        "Methods": ", ".join(config.methods),
    }


def pictures(config: Config, folder: Path) -> dict[str, list[Picture]]:
    """The figures that a run has, by scene, in the order to be read. InputError where there is none
    at all.
    """
    found: dict[str, list[Picture]] = {scene: [] for scene in config.scored}
    for entry in figures.catalogue(config):
        path = folder / f"{entry.name}.png"
        if path.is_file():
            found[entry.scene].append(Picture(entry, base64.b64encode(path.read_bytes()).decode()))
    for scene, shown in found.items():
        if not shown:
            raise InputError(
                f"{folder}: no figure of scene {scene!r}; expected PNG files named "
                f"{scene}_<kind>.png"
            )
    return found


def _chosen(config: Config, run_dir: Path, method: str) -> Chosen:
    """The settings chosen for a method, level by level. InputError where a file is missing."""
    levels = {
        display.level(level.background, level.electrons): tuned.read_tuned(
            layout.tuned_path(run_dir, method, level.name)
        )
        for level in config.levels
    }
    return Chosen(method, levels, list(config.tried(method)))


def _used(config: Config, run_dir: Path, method: str) -> Used:
    """Settings, devices and versions written in the maps of a method."""
    by_settings: dict[str, list[str]] = {}
    devices: set[str] = set()
    versions = "{}"
    for scene in config.scored:
        for level in config.levels:
            for seed in config.seeds.test:
                attributes = read_map(
                    layout.map_path(run_dir, scene, level.name, seed, method)
                ).attributes
                text = json.dumps(json.loads(attributes["settings"]), indent=1)
                name = display.level(level.background, level.electrons)
                levels = by_settings.setdefault(text, [])
                if name not in levels:
                    levels.append(name)
                devices.add(str(attributes["device"]))
                versions = str(attributes.get("versions", versions))
    same = len(by_settings) == 1
    settings = {"" if same else "; ".join(levels): text for text, levels in by_settings.items()}
    return Used(
        method,
        settings,
        sorted(devices),
        ", ".join(f"{k} {v}" for k, v in sorted(json.loads(versions).items())),
    )
