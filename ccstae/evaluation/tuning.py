"""The best settings of a method at a noise level, found by search on counts that are never scored.

Only scenes with `tune: true` and the seeds in `seeds.tune` are looked at: other fields and other
noise than the scored ones, truth included. Starting from the settings in the config, one setting at
a time takes each of the values to be tried while the others stand still, and keeps the best, round
after round until a whole round changes nothing (cyclic coordinate search: a few dozen runs do for
spaces of thousands). Every candidate sees the same counts, so errors are compared position by
position, and one that is better by less than twice the standard error of that difference is not
taken for better: it would owe that to these draws of the noise. One that is worse by more after the
first draws is not run on the others (a race: Maron and Moore, Artif. Intell. Rev. 11, 193 (1997)),
so that four draws cost two to three times what one does.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.evaluation.metrics import compare, regions
from ccstae.io import layout
from ccstae.io.maps import read_map
from ccstae.io.truth import read_truth
from ccstae.io.tuned import Tuned, write_tuned
from ccstae.methods import run

MAX_ROUNDS = 4
# Where noise outgrows the strain, no answer is the smallest error. Silence is not to be chosen:
# candidates may leave at most this share of the positions without an answer beyond that of the
# settings the search begins with.
MAX_ADDED_SILENCE = 0.01
# Standard errors by which a setting must be better to be taken for it.
MIN_STANDARD_ERRORS = 2.0
Settings = dict[str, Any]
Array = NDArray[np.float64]


def write(config: Config, method: str, level_name: str, run_dir: Path, out: Path) -> None:
    """Search the settings of a method at a noise level and write the chosen ones.

    Args:
        config: of the run; its tuning scenes, `seeds.tune` and the settings to try are used.
        method: which of its methods.
        level_name: which of its noise levels.
        run_dir: the run's folder, with counts and truth of the tuning scenes.
        out: where the chosen settings go; `ccstae.io.tuned` reads them.

    Raises:
        InputError: where there is nothing to try or to try it on, a file is missing or unfit, or
            the settings to begin with do not run.
    """
    level = config.level(level_name)
    tried = config.tried(method)
    if not tried or not config.tuning or not config.seeds.tune:
        raise InputError(
            f"methods.{method}.tune: expected settings to try, a scene with tune: true and a seed "
            f"in seeds.tune"
        )
    begin = config.begin(method)
    mapped = config.goes_on_from(method)  # whose maps are there already
    costs: dict[str, Array | None] = {}  # of the settings run so far, as JSON
    max_silent = 1.0

    def cost(settings: Settings, least: Array | None = None) -> Array | None:
        nonlocal max_silent
        key = json.dumps(settings, sort_keys=True)
        if key not in costs:
            try:
                candidate = config.with_settings(method, settings)
                errors, silent = squares(candidate, method, level, run_dir, least, mapped)
            except InputError as problem:
                if not costs:  # the settings to begin with
                    raise
                print(f"not with {key}: {problem}", file=sys.stderr)
                costs[key] = None
                return None
            if not costs:
                max_silent = silent + MAX_ADDED_SILENCE
            complete = least is None or len(errors) == len(least)
            costs[key] = errors if complete and silent <= max_silent else None
        return costs[key]

    def error(settings: Settings) -> float:
        errors = cost(settings)
        assert errors is not None  # begin and chosen have answers
        return float(np.sqrt(errors.mean()))

    chosen = search(begin, tried, cost)
    write_tuned(
        out,
        Tuned(
            method=method,
            level=level.name,
            settings=chosen,
            error=error(chosen),
            error_before=error(begin),
            tried=len(costs),
        ),
    )


def search(
    begin: Settings,
    tried: dict[str, list[Any]],
    cost: Callable[[Settings, Array | None], Array | None],
) -> Settings:
    """Cyclic coordinate search: the settings of least cost along every one of `tried`, from
    `begin`.

    cost(settings, least) is one of every position, (n,), given the least so far; None where the
    settings are out of the question.
    """
    best, least = begin, cost(begin, None)
    assert least is not None
    for _ in range(MAX_ROUNDS):
        before = best
        for name, values in tried.items():
            for value in values:
                candidate = {**best, name: value}
                errors = cost(candidate, least)
                if errors is not None and better(errors, least):
                    best, least = candidate, errors
        if best == before:
            break
    return best


def better(one: Array, other: Array) -> bool:
    """Whether the costs `one` (n,) are less than the `other` ones of the same positions, by more
    than `MIN_STANDARD_ERRORS`.
    """
    difference = one - other
    standard_error = difference.std() / math.sqrt(len(difference))
    return bool(difference.mean() < -MIN_STANDARD_ERRORS * standard_error)


def squares(
    config: Config,
    method: str,
    level: Level,
    run_dir: Path,
    least: Array | None = None,
    mapped: str | None = None,
) -> tuple[Array, float]:
    """Mean square of error / bound (error where noise-free) over the components, at the interior
    positions (n,) of tuning seeds and scenes.

    With it the share of positions without an answer. Once those looked at are worse than the first
    of `least`, the rest is left out. Where a stage `smooth` is all that sets the method apart from
    the row `mapped`, it gets that row's maps.
    """
    errors, silent = np.empty(0), []
    noise_free = math.isinf(level.electrons)
    seeds = config.seeds.tune[:1] if noise_free else config.seeds.tune  # draws without noise agree
    for seed, scene in product(seeds, config.tuning):
        truth = read_truth(layout.truth_path(run_dir, scene))
        interior = regions(truth).get("interior", truth.label != 0)
        bound = (
            np.ones(4)
            if noise_free
            else np.sqrt(np.mean(np.square(truth.bound[level.name][interior]), 0))
        )
        with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
            answer = Path(folder) / "map.h5"
            before = None
            if mapped is not None:
                before = layout.map_path(run_dir, scene, level.name, seed, mapped)
            counts = layout.counts_path(run_dir, scene, level.name, seed)
            run.write(config, method, counts, answer, run.Options(from_map=before))
            compared = compare(truth, read_map(answer).F)
        errors = np.append(errors, (compared.error[interior] ** 2 / bound**2).mean(1))
        silent.append(compared.failed[interior].mean())
        if least is not None and better(least[: len(errors)], errors):
            break
    return errors, float(np.mean(silent))
