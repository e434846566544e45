"""How fast each method is, on one core and on all: the same counts, a fresh process each time,
methods taking turns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from ccstae.config.run import Config, dump
from ccstae.errors import InputError
from ccstae.io import atomic, layout
from ccstae.io.maps import Map, read_map

REPEATS = 3
COLUMNS = (
    "scene",
    "background",
    "electrons",
    "method",
    "cores",
    "repeat",
    "seconds",
    "patterns_per_second",
    "peak_memory_bytes",
)
NONE = pd.DataFrame(columns=list(COLUMNS))


def write(config: Config, run_dir: Path, cores: int, out: Path) -> None:
    """Time every method of the config on the first scene at the noise level `throughput`, controls
    with truth in hand apart.

    Seconds are those of the mapping alone, as in map files. A method that fails by its own
    environment has no rows.

    Args:
        config: of the run.
        run_dir: its folder, with the counts.
        cores: how many to use beside one.
        out: where the table goes, a CSV file with the columns `COLUMNS`, one row a map.

    Raises:
        InputError: where no level is set, the counts are missing or unfit, or a method fails.
    """
    if config.throughput is None:
        raise InputError("throughput: not set; expected the name of a noise level")
    level = config.level(config.throughput)
    scene, seed = next(iter(config.scored)), config.seeds.test[0]
    counts = layout.counts_path(run_dir, scene, level.name, seed)
    rows: list[tuple[Any, ...]] = []
    for repeat in range(REPEATS):
        for method in (row for row in config.methods if not config.control(row)):
            chosen = (
                layout.tuned_path(run_dir, method, level.name)
                if config.methods[method].tune
                else None
            )
            for n in sorted({1, cores}):
                answer = _map(config, method, counts, chosen, n)
                if "error" in answer.attributes:
                    continue
                seconds, patterns = float(answer.attributes["seconds"]), answer.F[..., 0, 0].size
                cost = (seconds, patterns / seconds, int(answer.attributes["peak_memory_bytes"]))
                rows.append((scene, level.background, level.electrons, method, n, repeat, *cost))
                print(
                    f"{method} on {n} of {cores} cores: {patterns / seconds:.4g} patterns/s",
                    file=sys.stderr,
                )
    with atomic.atomic(out) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(
            temporary, index=False, float_format="%.6g", lineterminator="\n"
        )


def read(file: Path) -> pd.DataFrame:
    """The table that `write` wrote; empty where there is none.

    Raises:
        InputError: where it has other columns than `COLUMNS`.
    """
    if not Path(file).is_file():
        return NONE
    table = pd.read_csv(file, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise InputError(
            f"{file}: columns are {', '.join(map(str, table.columns))}; expected "
            f"{', '.join(COLUMNS)}"
        )
    return table


def _map(config: Config, method: str, counts: Path, chosen: Path | None, cores: int) -> Map:
    """A map made by `ccstae map` in a process of its own, told to use so many cores."""
    entry = config.methods[method].model_copy(update={"tune": False})
    given = config.model_copy(update={"methods": {method: entry}, "throughput": None})
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        answer = Path(folder) / "map.h5"
        words = ["ccstae", "--threads", str(cores), "map", "-", method]
        words += ["--counts", str(counts), "--out", str(answer)]
        if chosen:
            words += ["--tuned", str(chosen)]
        done = subprocess.run(words, input=dump(given), text=True, capture_output=True)
        if done.returncode:
            raise InputError(
                done.stderr.strip().removeprefix("error: ") or f"{method}: `ccstae map` failed"
            )
        return read_map(answer)
