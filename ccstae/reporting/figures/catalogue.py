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
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.evaluation import published as published_errors
from ccstae.evaluation import throughput
from ccstae.evaluation.dislocations import circuits, find
from ccstae.evaluation.metrics import compare, per_pattern, regions
from ccstae.evaluation.reference import against, commonest
from ccstae.io import layout
from ccstae.io.maps import Map, read_map
from ccstae.io.scene import read_patterns
from ccstae.io.scores import read_not_run, read_scores
from ccstae.io.truth import read_truth
from ccstae.reporting import display, side_by_side
from ccstae.reporting import published as published_tables
from ccstae.reporting import resolution as resolutions
from ccstae.reporting import robustness as robustness_matrix
from ccstae.reporting.figures import (
    dislocations,
    error,
    maps,
    patterns,
    published,
    resolution,
    robustness,
    scans,
    scatter,
    speed,
    style,
    truth,
)
from ccstae.reporting.table import with_not_run
from ccstae.simulation import noise
from ccstae.simulation.camera import COUNTING, Camera, camera_of


@dataclass(frozen=True)
class FigureEntry:
    """A figure that a run may have."""

    name: str
    """File name without its ending."""
    scene: str
    kind: str
    title: str
    caption: str


def overview(config: Config) -> list[FigureEntry]:
    """Every figure that a run of this config has of all its scenes together."""
    if not robustness_matrix.is_matrix(config):
        return []
    title = "Robustness"
    caption = (
        "Root mean square over the components of rmse / bound in the interior, for every method "
        "under every nuisance; the bound knows of the nuisance. Rings mark cells whose stated 95 % "
        "intervals hold too few or too many errors, crosses those with answers that are wrong and "
        "sure. Methods that state no deviation have no marks. A method that errs more than `zero` "
        "errs more than the no-strain answer. Grey cells did not run."
    )
    return [FigureEntry("robustness", "", "robustness", title, caption)]


def catalogue(config: Config) -> list[FigureEntry]:
    """Every figure that a run of this config may have, in the order to be read. Some need what only
    a run can tell.
    """
    entries = []
    for scene in config.scored:
        for kind, (title, caption) in _captions(config).items():
            if (
                kind == "dislocations"
                and getattr(config.scenes[scene], "dislocations", None) is None
            ):
                continue
            if kind == "published" and scene not in published_errors.scenes(config):
                continue
            if kind == "dictionary":
                entries += [
                    FigureEntry(
                        f"{scene}_{kind}_{method}", scene, kind, f"{title}: {method}", caption
                    )
                    for method in config.methods
                ]
            else:
                entries.append(FigureEntry(f"{scene}_{kind}", scene, kind, title, caption))
    title, caption = _OF_SCANS
    entries += [
        FigureEntry(f"{scan}_maps", scan, "scan_maps", title, caption) for scan in config.scans
    ]
    return entries


_OF_SCANS = (
    "Strain and rotation",
    "By every method, against the commonest lattice of the first one's map: that of a tenth of its "
    "answers. Grey: no answer.",
)


def _captions(config: Config) -> dict[str, tuple[str, str]]:
    """Title and caption of each kind of figure."""
    seeds = len(config.seeds.test)
    lines = {
        1: "Lines are of one seed.",
        2: "Lines are means of two seeds, bands their range.",
    }.get(seeds, f"Lines are medians of {seeds} seeds, bands their range.")
    along_noise = (
        f"{lines} Dotted is the size of the bias, left out where it is a small part of every "
        "error. Black is the Cramér-Rao bound, grey the control that answers no strain everywhere. "
        "Positions without an answer count with the error of the no-strain answer."
    )
    return {
        "published": (
            "Beside the published errors",
            "Mean absolute error over all positions, grain boundaries included, at 1e5 electrons a "
            "pattern. Grey: what others published of this truth, of one seed; their w = 0 has no "
            "Poisson noise. Black: the mean absolute error at the Cramér-Rao bound, which holds "
            "for unbiased methods that take each pattern alone. Rotations are compared as "
            "published: the difference is not wrapped by the symmetry of the lattice. Lines are "
            "medians over the seeds.",
        ),
        "error_background": (
            "Error against background",
            "Root mean square error in the interior against the share w of the electrons that the "
            f"background holds. {along_noise}",
        ),
        "error_dose": (
            "Error against dose",
            "Root mean square error in the interior against the electrons per pattern. "
            f"{along_noise}",
        ),
        "resolution": (
            "Error against resolution",
            "Root mean square over the components of rmse / bound in the interior, against the "
            "wavelength of strain that is shown with half of its amplitude, or the 10 to 90 % "
            "width of the interface. A line is one method as its width varies, the number beside a "
            "point, and begins with what it smooths; bars span the seeds. Down and to the left is "
            "better: what lies on a line is worth no more than that average.",
        ),
        "transfer": (
            "Modulation transfer",
            "Shown amplitude of the strain waves over the true one, against their wavelength. "
            f"{lines} A method that takes each pattern alone shows every wave in full, whatever "
            "its noise.",
        ),
        "speed": (
            "Accuracy against speed",
            "Root mean square over the components of rmse / bound in the interior, against the "
            "patterns mapped in a second, on one core (filled) and on all (open), at the level at "
            "which speeds were measured. Bars span the seeds and the rounds of timing.",
        ),
        "maps": (
            "Maps and residuals",
            "Maps of one seed beside the probe-averaged truth, and below each its residual (map "
            "minus truth) with its rmse and bias in the interior. Below the truth: one standard "
            "deviation of the bound, pattern by pattern, on the scale of the residuals. A row "
            "shares its colour scale; maps end at the truth and three bounds, residuals at four. "
            "Grey is vacuum, black a position without an answer. Controls are left out. Rows of "
            "the scan run down; theta is positive from x (right) towards y (down).",
        ),
        "scatter": (
            "Predicted against true",
            "Each point is one position of one seed, coloured in the interior, grey elsewhere on "
            "the sample. Dotted lines lie 1.96 median bounds off the diagonal: 95 % of an "
            "efficient method's interior lies between them. Values beyond the frame are drawn on "
            "it. Controls are left out.",
        ),
        "dislocations": (
            "Dislocations",
            "How far the circuit round each cell of the scan is from closing, in shortest lattice "
            "vectors: 0 where the lattice is whole, 1 round a dislocation. Rings are the "
            "dislocations of the truth, crosses those found in the map. Black: a circuit passes a "
            "position without an answer.",
        ),
        "truth": (
            "Truth",
            "The probe-averaged truth. Above: total strain against the lattice of the first "
            "material. Below: elastic strain, against the free lattice of each position's own "
            "material, where one material fills the probe. The bound is that of the level shown in "
            "the maps. The dashed line encloses the reference region, over which every map is "
            "re-referenced.",
        ),
        "patterns": (
            "Sample patterns",
            "Patterns as the methods get them, one position of each kind, on one logarithmic "
            "scale. The noise-free column shows the expected counts at the dose of the others.",
        ),
        "dictionary": (
            "Learned dictionary",
            "The averaged patterns that the method found in the noisy counts of one seed, without "
            "labels; each over its maximum.",
        ),
    }


def write(config: Config, run_dir: Path, figures_dir: Path) -> None:
    """Draw every figure of a run as PNG and PDF, `<scene>_<kind>.png` and `.pdf`.

    Args:
        config: The run.
        run_dir: Its folder: scores, scenes with their truth, maps of every method, and speeds if
            the run measures them.
        figures_dir: Folder of the figures; made where there is none.

    Raises:
        InputError: A file is missing or unreadable.
    """
    run_dir, figures_dir = Path(run_dir), Path(figures_dir)
    metrics = read_scores(run_dir / layout.METRICS)
    with style.styled():
        if robustness_matrix.is_matrix(config):
            not_run = read_not_run(run_dir / layout.METRICS)
            cells = robustness_matrix.numbers(with_not_run(metrics, not_run))
            levels = [(one.background, one.electrons) for one in config.levels]
            drawn = robustness.draw(
                cells,
                list(config.scored),
                [level for level in levels if math.isfinite(level[1])],
                list(config.methods),
            )
            style.save(drawn, figures_dir / "robustness")
        for scene in config.scored:
            of_scene = metrics[metrics["scene"] == scene]
            if scene in published_errors.scenes(config):
                drawn = _beside_published(config, run_dir, scene)
                style.save(drawn, figures_dir / f"{scene}_published")
            for kind, drawn in _of_scores(config, run_dir, scene, of_scene):
                style.save(drawn, figures_dir / f"{scene}_{kind}")
            for kind, drawn in _of_maps(config, run_dir, scene, of_scene):
                style.save(drawn, figures_dir / f"{scene}_{kind}")
        for scan in config.scans:
            strained = _against_commonest(config, run_dir, scan)
            if strained:
                style.save(scans.draw(strained), figures_dir / f"{scan}_maps")


def _against_commonest(config: Config, run_dir: Path, scan: str) -> dict[str, Map]:
    """The maps of a recorded scan that hold an answer, by method."""
    answers = {
        method: read_map(layout.of_scan(run_dir, layout.SCAN_MAP, scan, method))
        for method in config.mapping_scans
    }
    answers = {name: answer for name, answer in answers.items() if np.isfinite(answer.F).any()}
    if not answers:
        return {}
    # The same positions for every method: of two materials either may be the commonest.
    reference = commonest(next(iter(answers.values())))
    return {
        name: against(answer, reference)
        for name, answer in answers.items()
        if np.isfinite(answer.F[reference]).all((-1, -2)).any()
    }


def _beside_published(config: Config, run_dir: Path, scene: str) -> Figure:
    """The errors of a scene beside those that others published of it."""
    measured = published_errors.read(run_dir / layout.PUBLISHED)
    frame = published_tables.beside(config, measured)
    frame = frame[(frame["scene"] == scene) & (frame["electrons"] == 1e5)]
    return published.draw(frame, style.lines(config.methods))


def _of_scores(
    config: Config, run_dir: Path, scene: str, metrics: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """Each figure that shows scores of a scene, under its kind."""
    lines = style.lines(config.methods)
    with_truth = display.with_truth(config)
    silent = [
        method for method in config.methods if method in display.controls(config) - with_truth
    ]
    left_out = {*with_truth, *silent[1:]}  # no rivals; and controls without an answer err alike
    one_control = {method: line for method, line in lines.items() if method not in left_out}
    for axis, kind in (("background", "error_background"), ("electrons", "error_dose")):
        along = error.series(metrics, axis)
        if along[axis].nunique() > 1:
            yield kind, error.draw(along, one_control, axis)

    drawn_methods = {method: lines[method] for method in _without_controls(config)}
    not_run = read_not_run(run_dir / layout.METRICS)
    resolved = resolutions.numbers(with_not_run(metrics, not_run))
    resolved = resolved[resolved["method"].isin(drawn_methods)]
    if len(resolved):
        true = metrics[(metrics["metric"] == "width_10_90_truth") & (metrics["quantity"] == "exx")]
        width = float(true["value"].iloc[0]) if len(true) else None
        yield "resolution", resolution.draw(resolved, drawn_methods, width)
    transfer = resolutions.transfer(metrics)
    if len(transfer):
        yield "transfer", resolution.draw_transfer(transfer, drawn_methods)

    speeds = throughput.NONE
    if config.throughput:
        speeds = throughput.read(run_dir / layout.THROUGHPUT)
    if scene in set(speeds["scene"]):
        timed = metrics[
            (metrics["background"] == speeds["background"].iloc[0])
            & (metrics["electrons"] == speeds["electrons"].iloc[0])
        ]
        errors = side_by_side.error_over_bound(timed)
        yield "speed", speed.draw(errors, speeds, drawn_methods)


def _of_maps(
    config: Config, run_dir: Path, scene: str, metrics: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """Each figure that shows truth, maps and patterns of a scene, under its kind."""
    settings = config.scenes[scene]
    step_nm = settings.scan.step_A / 10
    exact = read_truth(layout.truth_path(run_dir, scene))
    sample = exact.label != 0
    interior = regions(exact).get("interior", sample)
    background, electrons = display.shown_level(metrics)
    level = Level(background=background, electrons=electrons)
    bound = None if math.isinf(electrons) else exact.bound[level.name]

    answers = {
        method: [
            read_map(layout.map_path(run_dir, scene, level.name, seed, method), sample.shape)
            for seed in config.seeds.test
        ]
        for method in config.methods
    }
    compared = {
        method: [compare(exact, answer.F) for answer in of_seeds]
        for method, of_seeds in answers.items()
    }
    shown = {method: compared[method] for method in _without_controls(config)}
    first_seed = {method: of_seeds[0] for method, of_seeds in shown.items()}
    yield "maps", maps.draw(first_seed, bound, ~sample, interior, step_nm)
    yield "scatter", scatter.draw(shown, style.lines(config.methods), bound, sample, interior)

    lines = exact.dislocations
    if lines is not None and len(lines.position):
        closures = {}
        for method, of_seeds in answers.items():
            own, covariance = per_pattern(exact, of_seeds[0])
            F = own.deformation(sample)
            closures[method] = (
                circuits(F, lines.step_A, covariance),
                find(F, lines.lattice_A, lines.step_A, covariance),
            )
        shortest_A = float(np.linalg.norm(lines.lattice_A, axis=0).min())
        yield (
            "dislocations",
            dislocations.draw(lines.position, closures, sample.shape, shortest_A, step_nm),
        )

    materials = list(settings.materials)
    lattice_A = [a for a in (config.materials[name].a_A for name in materials) if a is not None]
    every_a_A = lattice_A if len(lattice_A) == len(materials) else None
    yield "truth", truth.draw(exact, materials, every_a_A, bound, step_nm)

    places = patterns.positions(exact, materials)
    clean, calibration = read_patterns(layout.scene_path(run_dir, scene), list(places.values()))
    microscope = config.of_scene(scene).microscope
    camera = camera_of(microscope, calibration, settings.scan)
    drawn_counts = [
        [
            counts(pattern, one, level, config.seeds.test[0], scene, place, sample.shape[1], camera)
            for one in config.levels
        ]
        for pattern, place in zip(clean, places.values(), strict=True)
    ]
    titles = [display.level_math(one.background, one.electrons) for one in config.levels]
    yield "patterns", patterns.draw(np.array(drawn_counts), list(places), titles, calibration)

    for method, of_seeds in answers.items():
        dictionary = of_seeds[0].dictionary
        if dictionary is not None:
            yield (
                f"dictionary_{method}",
                patterns.draw_dictionary(dictionary, calibration, clean.shape[-1]),
            )


def _without_controls(config: Config) -> list[str]:
    """The methods that are no controls; all where there are no others."""
    controls = display.controls(config)
    return [method for method in config.methods if method not in controls] or list(config.methods)


def counts(
    pattern: NDArray[np.float32],
    level: Level,
    shown_level: Level,
    seed: int,
    scene: str,
    place: tuple[int, int],
    columns: int,
    camera: Camera = COUNTING,
) -> NDArray[np.float64]:
    """The counts of one position at a level, drawn anew, the same as the methods got; expected
    counts at the dose of `shown_level` if noise-free. `camera` is that of the whole scan.
    """
    here = camera.at(place)
    if math.isinf(level.electrons):
        shown = Level(background=0, electrons=shown_level.electrons)
        return noise.expectation(pattern, shown, here)
    index = place[0] * columns + place[1]
    return noise.pattern_counts(pattern, level, seed, scene, index, here).astype(float)
