"""Figures of a run. One module a kind, each a function of arrays or tables; this one reads the
files and names the results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.evaluation import score, throughput
from ccstae.evaluation.dislocations import circuits, find
from ccstae.evaluation.score import shown_level
from ccstae.io import layout
from ccstae.io.maps import read_map
from ccstae.io.scene import read_patterns
from ccstae.io.truth import read_truth
from ccstae.reporting import display, side_by_side
from ccstae.reporting.figures import (
    dislocations,
    error,
    maps,
    patterns,
    scatter,
    speed,
    style,
    truth,
)
from ccstae.simulation import noise

_NO_ANSWER = "Positions without an answer count with the error of the no-strain answer."
_CAPTIONS = {
    "error_background": (
        "Error against background",
        "Root mean square error in the interior against the share w of the electrons that the "
        "background holds. Lines are medians over the "
        f"seeds, bands their range. Black is the Cramér-Rao bound, grey the control that answers "
        f"no strain everywhere. {_NO_ANSWER}",
    ),
    "error_dose": (
        "Error against dose",
        "Root mean square error in the interior against the electrons per pattern. Lines are "
        "medians over the seeds, bands their range. "
        f"Black is the Cramér-Rao bound, grey the control that answers no strain everywhere. "
        f"{_NO_ANSWER}",
    ),
    "speed": (
        "Accuracy against speed",
        "Root mean square over the components of rmse / bound in the interior, against the "
        "patterns mapped in a second, on one core "
        "(filled) and on all (open), at the level at which speeds were measured. Bars span the "
        "seeds and the rounds of timing.",
    ),
    "maps": (
        "Maps and residuals",
        "Maps of one seed beside the probe-averaged truth, and below each its residual (map minus "
        "truth) with its rmse in the interior. "
        "Below the truth: one standard deviation of the bound, pattern by pattern, on the scale of "
        "the residuals. A row shares its colour "
        "scale; residual scales end at four bounds. Grey is vacuum, black a position without an "
        "answer. Rows of the scan run down; "
        "theta is positive from x (right) towards y (down).",
    ),
    "scatter": (
        "Predicted against true",
        "Each point is one position of one seed, coloured in the interior, grey elsewhere on the "
        "sample. Dotted lines lie 1.96 median "
        "bounds off the diagonal: 95 % of an efficient method's interior lies between them. Values "
        "beyond the frame are drawn on it.",
    ),
    "dislocations": (
        "Dislocations",
        "How far the circuit round each cell of the scan is from closing, in shortest lattice "
        "vectors: 0 where the lattice is whole, "
        "1 round a dislocation. Rings are the dislocations of the truth, crosses those found in "
        "the map. Black: a circuit passes a "
        "position without an answer.",
    ),
    "truth": (
        "Truth",
        "The probe-averaged truth. Above: total strain against the lattice of the first material. "
        "Below: elastic strain, against the free "
        "lattice of each position's own material, where one material fills the probe. The bound is "
        "that of the level shown in the maps. "
        "The dashed line encloses the reference region, over which every map is re-referenced.",
    ),
    "patterns": (
        "Sample patterns",
        "Patterns as the methods get them, one position of each kind, on one logarithmic scale. "
        "The noise-free column shows the "
        "expected counts at the dose of the others.",
    ),
    "dictionary": (
        "Learned dictionary",
        "The averaged patterns that the method found in the noisy counts of one seed, without "
        "labels; each over its maximum.",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A figure that a run may have."""

    name: str
    """File name without its ending."""
    scene: str
    kind: str
    title: str
    caption: str


def catalogue(config: Config) -> list[Entry]:
    """Every figure that a run of this config may have, in the order to be read. Some need what only
    a run can tell.
    """
    entries = []
    for scene in config.scored:
        for kind, (title, caption) in _CAPTIONS.items():
            if (
                kind == "dislocations"
                and getattr(config.scenes[scene], "dislocations", None) is None
            ):
                continue
            for method in config.methods if kind == "dictionary" else [""]:
                name = f"{scene}_{kind}" + (f"_{method}" if method else "")
                entries.append(
                    Entry(name, scene, kind, f"{title}: {method}" if method else title, caption)
                )
    return entries


def write(config: Config, run_dir: Path, figures_dir: Path) -> None:
    """Draw every figure of a run as PNG and PDF. InputError names what is missing."""
    run_dir, figures_dir = Path(run_dir), Path(figures_dir)
    metrics = score.read(run_dir / layout.METRICS)
    with style.styled():
        for scene in config.scored:
            for name, drawn in _of_scene(
                config, run_dir, scene, metrics[metrics["scene"] == scene]
            ):
                style.save(drawn, figures_dir / f"{scene}_{name}")


def _of_scene(
    config: Config, run_dir: Path, scene: str, metrics: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """Each figure of a scene under its kind."""
    for axis, name in (("background", "error_background"), ("electrons", "error_dose")):
        along = error.series(metrics, axis)
        if along[axis].nunique() > 1:
            yield name, error.draw(along, list(config.methods), axis)

    speeds = (
        throughput.read(Path(run_dir, layout.THROUGHPUT)) if config.throughput else throughput.NONE
    )
    if scene in set(speeds["scene"]):
        measured = metrics[
            (metrics["background"] == speeds["background"].iloc[0])
            & (metrics["electrons"] == speeds["electrons"].iloc[0])
        ]
        ran = list(dict.fromkeys(speeds["method"]))
        yield (
            "speed",
            speed.draw(
                side_by_side.error_over_bound(measured),
                speeds,
                [m for m in config.methods if m in ran and m != "zero"],
            ),
        )

    settings = config.scenes[scene]
    exact = read_truth(layout.truth_path(run_dir, scene))
    level = Level(**dict(zip(("background", "electrons"), shown_level(metrics), strict=True)))
    limit = None if math.isinf(level.electrons) else exact.bound[level.name]
    step_nm = settings.scan.step_A / 10
    sample = exact.label != 0
    interior = score.regions(exact).get("interior", sample)

    answers = {
        method: [
            read_map(layout.map_path(run_dir, scene, level.name, seed, method), sample.shape)
            for seed in config.seeds.test
        ]
        for method in config.methods
    }
    compared = {
        method: [score.compare(exact, answer.F) for answer in found]
        for method, found in answers.items()
    }
    yield (
        "maps",
        maps.draw(
            {m: found[0] for m, found in compared.items()}, limit, ~sample, interior, step_nm
        ),
    )
    yield "scatter", scatter.draw(compared, limit, sample, interior)

    lines = exact.dislocations
    if lines is not None and len(lines.position):
        shown_maps = {}
        for method, found in answers.items():
            F, covariance = compared[method][0].deformation(sample), found[0].covariance
            shown_maps[method] = (
                circuits(F, lines.step_A, covariance),
                find(F, lines.lattice_A, lines.step_A, covariance),
            )
        shortest = float(np.linalg.norm(lines.lattice_A, axis=0).min())
        yield (
            "dislocations",
            dislocations.draw(lines.position, shown_maps, sample.shape, shortest, step_nm),
        )

    materials = list(settings.materials)
    lattice = [config.materials[m].a_A for m in materials]
    known = [a for a in lattice if a is not None]
    yield (
        "truth",
        truth.draw(exact, materials, known if len(known) == len(lattice) else None, limit, step_nm),
    )

    scene_path = layout.scene_path(run_dir, scene)
    places = patterns.positions(exact, materials)
    clean, calibration = read_patterns(scene_path, list(places.values()))
    shown = [
        [
            counts(pattern, one, level, config.seeds.test[0], scene, place, sample.shape[1])
            for one in config.levels
        ]
        for pattern, place in zip(clean, places.values(), strict=True)
    ]
    titles = [display.level_math(one.background, one.electrons) for one in config.levels]
    yield "patterns", patterns.draw(np.array(shown), list(places), titles, calibration)

    for method, found in answers.items():
        if found[0].dictionary is not None:
            yield (
                f"dictionary_{method}",
                patterns.draw_dictionary(found[0].dictionary, calibration, clean.shape[-1]),
            )


def counts(
    pattern: np.ndarray,
    level: Level,
    shown: Level,
    seed: int,
    scene: str,
    place: tuple[int, int],
    columns: int,
) -> np.ndarray:
    """The counts of one position at a level, drawn anew, the same as the methods got; expected
    counts at the `shown` dose if noise-free.
    """
    if math.isinf(level.electrons):
        return noise.expectation(pattern, Level(background=0, electrons=shown.electrons))
    return noise.pattern_counts(pattern, level, seed, scene, place[0] * columns + place[1]).astype(
        float
    )
