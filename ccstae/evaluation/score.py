"""The scores of a run: every map held against the truth of its scene (`metrics` says how)."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.evaluation.metrics import score_map
from ccstae.io import layout
from ccstae.io.maps import Map, read_map
from ccstae.io.scores import write_not_run, write_scores
from ccstae.io.truth import Truth, read_truth


def write(
    config: Config, run_dir: Path, metrics_path: Path, not_run_path: Path | None = None
) -> None:
    """Score every map of a run and write the long table.

    Args:
        config: of the run.
        run_dir: its folder, with the truth files and maps.
        metrics_path: where the table goes, a CSV file with the columns `scores.COLUMNS`.
        not_run_path: where the list of maps goes that no program could make, and why; beside the
            table where left out.

    Raises:
        InputError: names a file that is missing or unfit, or that cannot be written.
    """
    rows: list[tuple[Any, ...]] = []
    not_run: list[tuple[Any, ...]] = []
    for scene in config.scored:
        truth = _read_truth(layout.truth_path(Path(run_dir), scene), config.levels)
        for method, level, seed in product(config.methods, config.levels, config.seeds.test):
            map_path = layout.map_path(Path(run_dir), scene, level.name, seed, method)
            answer = _read_map(map_path, truth.label.shape)
            key = (scene, method, level.background, level.electrons, seed)
            rows += [(*key, *row) for row in score_map(truth, level, answer)]
            if "error" in answer.attributes:
                not_run.append((*key, answer.attributes["error"]))
    write_scores(metrics_path, rows)
    write_not_run(not_run_path or layout.not_run_path(metrics_path), not_run)


def _read_truth(path: Path, levels: list[Level]) -> Truth:
    truth = read_truth(path)
    shape = (*truth.label.shape, 4)
    for level in levels:
        bound = truth.bound.get(level.name)
        if math.isinf(level.electrons):
            continue
        if bound is None or bound.shape != shape or not (bound[truth.label != 0] > 0).all():
            raise InputError(
                f"{path}: /limit/{level.name} is missing or unfit; expected standard deviations "
                f"above 0 of shape {shape}"
            )
    return truth


def _read_map(path: Path, shape: tuple[int, int]) -> Map:
    answer = read_map(path, shape)
    for name in ("seconds", "peak_memory_bytes"):
        value = answer.attributes.get(name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(
                f"{path}: attribute {name} is {value!r}; expected a finite number from 0 up"
            )
    return answer
