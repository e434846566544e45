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
from ccstae.evaluation import score
from ccstae.io import layout, tuned
from ccstae.io.maps import read_map
from ccstae.io.truth import read_truth
from ccstae.methods import run

ROUNDS = 4
# Where noise outgrows the strain, no answer is the smallest error. Silence is not to be chosen:
# candidates may leave at most this share of the positions without an answer beyond that of the
# settings the search begins with.
SILENCE = 0.01
# Standard errors by which a setting must be better to be taken for it.
SURE = 2.0
Settings = dict[str, Any]
Array = NDArray[np.float64]


def write(config: Config, method: str, level_name: str, run_dir: Path, out: Path) -> None:
    """Search the settings of a method at a level and write what was found; counts and truth are
    those in `run_dir`.
    """
    level = config.level(level_name)
    tried = config.tried(method)
    if not tried or not config.tuning or not config.seeds.tune:
        raise InputError(
            f"methods.{method}.tune: expected settings to try, a scene with tune: true and a seed "
            f"in seeds.tune"
        )
    begin = config.methods[method].settings
    settings = config.method_settings(method)
    if settings is not None:  # every default filled in
        begin = settings.model_dump(mode="json")
    seen: dict[str, Array | None] = {}
    most_silent = 1.0

    def cost(settings: Settings, least: Array | None = None) -> Array | None:
        nonlocal most_silent
        key = json.dumps(settings, sort_keys=True)
        if key not in seen:
            try:
                found, silent = squares(
                    config.with_settings(method, settings), method, level, run_dir, least
                )
                if not seen:
                    most_silent = silent + SILENCE
                seen[key] = (
                    found
                    if silent <= most_silent and (least is None or len(found) == len(least))
                    else None
                )
            except InputError as problem:
                if not seen:  # the settings to begin with
                    raise
                print(f"not with {key}: {problem}", file=sys.stderr)
                seen[key] = None
        return seen[key]

    def error(settings: Settings) -> float:
        found = cost(settings)
        assert found is not None  # begin and chosen have answers
        return float(np.sqrt(found.mean()))

    chosen = search(begin, tried, cost)
    tuned.write(
        out,
        tuned.Tuned(
            method=method,
            level=level.name,
            settings=chosen,
            error=error(chosen),
            error_before=error(begin),
            tried=len(seen),
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
    for _ in range(ROUNDS):
        before = best
        for name, values in tried.items():
            for value in values:
                candidate = {**best, name: value}
                found = cost(candidate, least)
                if found is not None and better(found, least):
                    best, least = candidate, found
        if best == before:
            break
    return best


def better(one: Array, other: Array) -> bool:
    """Whether the costs `one` (n,) are less than the `other` ones of the same positions, by more
    than `SURE` standard errors.
    """
    difference = one - other
    return bool(difference.mean() < -SURE * difference.std() / math.sqrt(len(difference)))


def squares(
    config: Config, method: str, level: Level, run_dir: Path, least: Array | None = None
) -> tuple[Array, float]:
    """Mean square of error / bound (error where noise-free) over the components, at the interior
    positions (n,) of tuning seeds and scenes.

    With it the share of positions without an answer. Once those looked at are worse than the first
    of `least`, the rest is left out.
    """
    found, silent = np.empty(0), []
    seeds = (
        config.seeds.tune[:1] if math.isinf(level.electrons) else config.seeds.tune
    )  # without noise one draw is like another
    for seed, scene in product(seeds, config.tuning):
        truth = read_truth(layout.truth_path(run_dir, scene))
        interior = score.regions(truth).get("interior", truth.label != 0)
        limit = (
            np.ones(4)
            if math.isinf(level.electrons)
            else np.sqrt(np.mean(np.square(truth.limit[level.name][interior]), 0))
        )
        with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
            answer = Path(folder) / "map.h5"
            run.write(config, method, layout.counts_path(run_dir, scene, level.name, seed), answer)
            compared = score.compare(truth, read_map(answer).F)
        found = np.append(found, (compared.error[interior] ** 2 / limit**2).mean(1))
        silent.append(compared.failed[interior].mean())
        if least is not None and better(least[: len(found)], found):
            break
    return found, float(np.mean(silent))
