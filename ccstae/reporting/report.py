"""The report of a run: one HTML file with everything in it, readable offline and on paper."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from ccstae.config.run import Config, dump
from ccstae.errors import InputError
from ccstae.io import atomic, layout, tuned
from ccstae.io.maps import read_map
from ccstae.io.scores import read_scores
from ccstae.methods import base
from ccstae.pipeline import provenance
from ccstae.reporting import display, tables
from ccstae.reporting.figures import catalogue as figures

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A figure with its bytes."""

    entry: figures.FigureEntry
    data: str
    """PNG as base64."""


@dataclass(frozen=True)
class MethodAsRun:
    """What a method ran with, over all its maps."""

    method: str
    settings: dict[str, str]
    """Settings as JSON text; the key says for which levels, empty for all."""
    devices: list[str]
    versions: str
    remarks: list[tuple[str, str, str]]
    """Of its maps of the first seed: scene, level, and what people must hear."""


@dataclass(frozen=True)
class ScanAsFound:
    """A recorded scan as it was imported and calibrated."""

    data: str
    """The picture of the calibration, PNG as base64."""
    said: list[str]
    """What the commands said."""


@dataclass(frozen=True)
class SearchedSettings:
    """What the search of a method's settings chose."""

    method: str
    levels: dict[str, tuned.Tuned]
    """By the level's name for people."""
    names: list[str]
    """The settings that were searched."""


def write(config: Config, run_dir: Path, report_path: Path) -> None:
    """Write the report of a run: one HTML file with figures and styles inside.

    Args:
        config: The run.
        run_dir: Its folder: scores, maps, figures (PNG), the settings that were searched, and
            what the rules cost (`benchmarks`).
        report_path: The HTML file.

    Raises:
        InputError: A file is missing or unreadable, or a scene has no figure.
    """
    run_dir = Path(run_dir)
    metrics_path = run_dir / layout.METRICS
    all_tables = {table.name: table for table in tables.load(config, metrics_path)}
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
        tables=all_tables,
        overview=overview(config, run_dir / layout.FIGURES),
        pictures=pictures(config, run_dir / layout.FIGURES),
        shown=display.level(*display.shown_level(read_scores(metrics_path)))
        if config.scored
        else "",
        scans={scan: _scan(run_dir, scan) for scan in config.scans},
        searched=[
            _searched(config, run_dir, method)
            for method, entry in config.methods.items()
            if entry.tune
        ],
        as_run=[_as_run(config, run_dir, method) for method in config.methods],
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


def _scan(run_dir: Path, scan: str) -> ScanAsFound:
    """What was found of a scan before it was mapped."""
    picture, *said = (
        layout.of_scan(run_dir, pattern, scan)
        for pattern in (layout.CALIBRATION_PICTURE, layout.IMPORT_SAID, layout.CALIBRATION_SAID)
    )
    try:
        data = base64.b64encode(picture.read_bytes()).decode()
        lines = [line for path in said for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; expected that of a scan") from None
    return ScanAsFound(data, lines)


def facts(config: Config) -> dict[str, str]:
    """The run in a few lines."""
    recorded = {"Recorded scans": ", ".join(config.scans)} if config.scans else {}
    methods = {"Methods": ", ".join(config.methods)}
    if not config.scored:
        return recorded | methods
    microscope = config.microscope
    backgrounds = sorted({level.background for level in config.levels})
    doses = {level.electrons for level in config.levels}
    noisy_doses = sorted(filter(math.isfinite, doses), reverse=True)
    scenes = (
        f"{name}: {' and '.join(scene.materials)}, "
        f"{scene.scan.shape[0]} x {scene.scan.shape[1]} positions"
        for name, scene in config.scored.items()
    )
    noise = (
        [f"w from {backgrounds[0]:g} to {backgrounds[-1]:g}"]
        if len(backgrounds) > 1
        else [f"w = {backgrounds[0]:g}"]
    )
    if noisy_doses:
        noise.append(f"{', '.join(map(display.power, noisy_doses))} electrons per pattern")
    if math.inf in doses:
        noise.append("noise-free")
    return {
        "Scenes": "; ".join(scenes),
        "Microscope": f"{microscope.energy_keV:g} kV, {microscope.semiangle_mrad:g} mrad, "
        f"{microscope.detector_px} x {microscope.detector_px} pixels of "
        f"{microscope.pixel_size_inv_A:g} 1/Å",
        "Noise levels": f"{len(config.levels)}: {', '.join(noise)}",
        "Seeds": ", ".join(map(str, config.seeds.test)),
        **recorded,
        **methods,
    }


def pictures(config: Config, folder: Path) -> dict[str, list[Picture]]:
    """The figures that a run has, by scene, in the order to be read. InputError where there is none
    at all.
    """
    by_scene: dict[str, list[Picture]] = {scene: [] for scene in [*config.scored, *config.scans]}
    for picture in _drawn(figures.catalogue(config), folder):
        by_scene[picture.entry.scene].append(picture)
    for scene, of_scene in by_scene.items():
        if not of_scene and scene not in config.scans:  # whose maps may hold no answer
            raise InputError(
                f"{folder}: no figure of scene {scene!r}; expected PNG files named "
                f"{scene}_<kind>.png"
            )
    return by_scene


def overview(config: Config, folder: Path) -> list[Picture]:
    """The figures that a run has of all its scenes together."""
    return list(_drawn(figures.overview(config), folder))


def _drawn(entries: list[figures.FigureEntry], folder: Path) -> Iterator[Picture]:
    """Those of the figures that the folder holds."""
    for entry in entries:
        path = folder / f"{entry.name}.png"
        if path.is_file():
            yield Picture(entry, base64.b64encode(path.read_bytes()).decode())


def _searched(config: Config, run_dir: Path, method: str) -> SearchedSettings:
    """The settings chosen for a method, level by level. InputError where a file is missing."""
    levels = {
        display.level(level.background, level.electrons): tuned.read_tuned(
            layout.tuned_path(run_dir, method, level.name)
        )
        for level in config.levels
    }
    return SearchedSettings(method, levels, list(config.tried(method)))


def _as_run(config: Config, run_dir: Path, method: str) -> MethodAsRun:
    """Settings, devices and versions written in the maps of a method."""
    by_settings: dict[str, list[str]] = {}
    devices: set[str] = set()
    remarks = []
    versions = "{}"
    for scene, name, path, first in _maps(config, run_dir, method):
        attributes = read_map(path).attributes
        text = json.dumps(json.loads(attributes["settings"]), indent=1)
        levels = by_settings.setdefault(text, [])
        if name not in levels:
            levels.append(name)
        devices.add(str(attributes["device"]))
        if first:
            found = json.loads(str(attributes.get("found", "{}")))
            remarks += [(scene, name, said) for said in base.remarks(found)]
        versions = str(attributes.get("versions", versions))
    is_same = len(by_settings) == 1
    settings = {"" if is_same else "; ".join(levels): text for text, levels in by_settings.items()}
    return MethodAsRun(
        method,
        settings,
        sorted(devices),
        ", ".join(f"{k} {v}" for k, v in sorted(json.loads(versions).items())),
        remarks,
    )


def _maps(config: Config, run_dir: Path, method: str) -> Iterator[tuple[str, str, Path, bool]]:
    """The maps of a method: scene or scan, level for people, file, and whether it is of the first
    seed.
    """
    for scene in config.scored:
        for level in config.levels:
            name = display.level(level.background, level.electrons)
            for seed in config.seeds.test:
                path = layout.map_path(run_dir, scene, level.name, seed, method)
                yield scene, name, path, seed == config.seeds.test[0]
    if method in config.mapping_scans:
        for scan in config.scans:
            yield scan, "recorded", layout.of_scan(run_dir, layout.SCAN_MAP, scan, method), True
