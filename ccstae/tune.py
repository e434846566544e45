"""The best settings of a method at a noise level, found by search on counts that are never scored.

Only scenes with `tune: true` and the seeds in `seeds.tune` are looked at: other fields and other noise than the scored ones, truth
included. Starting from the settings in the config, one setting at a time takes each of the values to be tried while the others stand
still, and keeps the best, round after round until a whole round changes nothing (cyclic coordinate search: every candidate sees
the same counts, so small differences are real, and a few dozen runs do for spaces of thousands).
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ccstae import score, store, tuned
from ccstae.config import Config, Level
from ccstae.errors import InputError
from ccstae.methods.run import run

ROUNDS = 4
# Where noise outgrows the strain, no answer is the smallest error. Silence is not to be chosen: candidates may leave at most this
# share of the positions without an answer beyond that of the settings the search begins with.
SILENCE = 0.01
Settings = dict[str, Any]


def tune(config: Config, method: str, level_name: str, run_dir: Path, out: Path) -> None:
    """Search the settings of a method at a level and write what was found; counts and truth are those in `run_dir`."""
    level = config.level(level_name)
    tried = config.tried(method)
    if not tried or not config.tuning or not config.seeds.tune:
        raise InputError(f"methods.{method}.tune: expected settings to try, a scene with tune: true and a seed in seeds.tune")
    begin = config.methods[method].settings
    settings = config.method_settings(method)
    if settings is not None:  # every default filled in
        begin = settings.model_dump(mode="json")
    seen: dict[str, float] = {}
    most_silent = 1.0

    def cost(settings: Settings) -> float:
        nonlocal most_silent
        key = json.dumps(settings, sort_keys=True)
        if key not in seen:
            try:
                found, silent = error(config.with_settings(method, settings), method, level, run_dir)
                if not seen:
                    most_silent = silent + SILENCE
                seen[key] = found if silent <= most_silent else math.inf
            except InputError as problem:
                if not seen:  # the settings to begin with
                    raise
                print(f"not with {key}: {problem}", file=sys.stderr)
                seen[key] = math.inf
        return seen[key]

    chosen = search(begin, tried, cost)
    tuned.write(
        out, tuned.Tuned(method=method, level=level.name, settings=chosen, error=cost(chosen), error_before=cost(begin), tried=len(seen))
    )


def search(begin: Settings, tried: dict[str, list[Any]], cost: Callable[[Settings], float]) -> Settings:
    """Cyclic coordinate search: the settings of least cost along every one of `tried`, from `begin`."""
    best = begin
    least = cost(best)
    for _ in range(ROUNDS):
        before = best
        for name, values in tried.items():
            for value in values:
                candidate = {**best, name: value}
                if (found := cost(candidate)) < least:
                    best, least = candidate, found
        if best == before:
            break
    return best


def error(config: Config, method: str, level: Level, run_dir: Path) -> tuple[float, float]:
    """Root mean square of rmse / bound (rmse where noise-free) of the components in the interior, over tuning scenes and seeds.

    With it the share of positions without an answer.
    """
    squares, silent = [], []
    for scene in config.tuning:
        truth = store.read_truth(score.truth_path(run_dir, scene))
        interior = score.regions(truth).get("interior", truth.label != 0)
        limit = np.ones(4) if math.isinf(level.electrons) else np.sqrt(np.mean(np.square(truth.limit[level.name][interior]), 0))
        for seed in config.seeds.tune:
            with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
                answer = Path(folder) / "map.h5"
                run(config, method, Path(run_dir) / "counts" / scene / f"{level.name}.{seed}.h5", answer)
                compared = score.compare(truth, store.read_map(answer).F)
            squares.append((compared.error[interior] ** 2).mean(0) / limit**2)
            silent.append(compared.failed[interior].mean())
    return float(np.sqrt(np.mean(squares))), float(np.mean(silent))
