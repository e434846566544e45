"""Patterns a second of applying what `ccstae` has learned, on one core and on more, and time
against the number of patterns.

    python tools/benchmarks/inference.py [--levels 0:1e5 0.25:1e5 0.5:1e5 0.7:1e5 0:1e4 0:1e3]
        [--threads 1 2] [--repeats 3] [--patterns 512]

Patterns are the ideal ones of the tests, 128 px, on a background of the published form. Learning is
done once a level and not timed; a pattern is then located, encoded, refined, and its posterior
drawn where needed. Runs on one core and on more take turns, so that a busy machine slows all of
them; the best and the worst of the repeats are shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from ccstae.config.levels import Level
from ccstae.io.counts import Counts
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
import synthetic

TAUGHT_BY = 256
EACH = (1, 2, 4)  # shares of the patterns, in quarters, that linearity is read from


def scan(patterns: int, level: Level, seed: int) -> Counts:
    """Counts (1, n, Qy, Qx) of ideal patterns with lattices of their own."""
    F = synthetic.random_deformations((1, patterns), seed=seed)
    return synthetic.Model().counts(F, level.electrons, level.background, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--levels",
        nargs="+",
        default=["0:1e5", "0.25:1e5", "0.5:1e5", "0.7:1e5", "0:1e4", "0:1e3"],
        metavar="w:electrons",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patterns", type=int, default=512)
    options = parser.parse_args()
    print(
        "level              threads   patterns/s best   worst   seconds for a quarter, a half and "
        "all patterns"
    )
    for text in options.levels:
        w, electrons = map(float, text.split(":"))
        level = Level(background=w, electrons=electrons)
        model = ccstae.learn(scan(TAUGHT_BY, level, seed=101), CcstaeSettings(), "cpu")
        if model is None:
            raise SystemExit(f"level {level.name}: no pattern holds a lattice")
        whole = scan(options.patterns, level, seed=1)
        seconds: dict[tuple[int, int], list[float]] = {}
        for _ in range(options.repeats):
            for threads in options.threads:
                torch.set_num_threads(threads)
                for quarters in EACH:
                    some = replace(
                        whole, counts=whole.counts[:, : options.patterns * quarters // 4]
                    )
                    begun = time.perf_counter()
                    ccstae.apply(model, some, "cpu")
                    seconds.setdefault((threads, quarters), []).append(time.perf_counter() - begun)
        for threads in options.threads:
            every = seconds[threads, 4]
            fewer = "   ".join(f"{min(seconds[threads, quarters]):.2f}" for quarters in EACH)
            best, worst = (options.patterns / s for s in (min(every), max(every)))
            print(f"{level.name:19s}{threads:7d}{best:18.0f}{worst:8.0f}   {fewer}", flush=True)


if __name__ == "__main__":
    main()
