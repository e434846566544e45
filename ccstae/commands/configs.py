"""The commands round a config: check, complete and describe it, and show its scenes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ccstae.commands.arguments import ConfigPath, Out, known
from ccstae.config.run import dump, read
from ccstae.errors import InputError


def check(config: ConfigPath) -> None:
    """Check a config and say what a run of it would hold."""
    from ccstae.specimen.build import build_scene, reference_warning

    run = read(config)
    warnings = []
    for scene in run.scenes:
        try:
            warnings.append(reference_warning(scene, build_scene(run, scene)))
        except InputError as error:
            raise InputError(f"{config}: {error}") from None
    for warning in warnings:
        warn(warning)
    maps = len(run.scored) * len(run.levels) * len(run.seeds.test) * len(run.methods)
    maps += len(run.scans) * len(run.mapping_scans)
    scans = f"{len(run.scans)} scans, " if run.scans else ""
    print(
        f"{config}: good: {len(run.scored)} scenes, {len(run.levels)} noise levels, {scans}"
        f"{len(run.methods)} methods, {maps} maps"
    )


def resolve(
    config: ConfigPath,
    out: Annotated[Path | None, typer.Option(help="A file instead of standard output.")] = None,
) -> None:
    """Print a config with every default filled in."""
    text = dump(read(config))
    if out is None:
        print(text, end="")
    else:
        from ccstae.io.atomic import write_text

        write_text(out, text)


def schema() -> None:
    """Print the JSON schema of configs."""
    from ccstae.config.schema import schema as config_schema

    print(json.dumps(config_schema(), indent=2))


def scenes() -> None:
    """List the kinds of scene and their settings."""
    from ccstae.config import describe

    print(describe.scenes())


def preview(
    config: ConfigPath,
    scene: str,
    out: Out,
    at: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW COLUMN", help="The position whose atoms to show."),
    ] = None,
) -> None:
    """Draw a scene to one PNG in seconds: truth, atoms, patterns."""
    run = read(config)
    known("scene", scene, run.scenes)
    from ccstae.reporting import preview
    from ccstae.specimen.build import build_scene, reference_warning

    preview.write(run, scene, out, at)
    warn(reference_warning(scene, build_scene(run, scene)))


def warn(warning: str | None) -> None:
    """Print a warning, where there is one, beside what the command prints."""
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
