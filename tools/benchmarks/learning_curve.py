"""How the error of `ccstae-2023` falls with patterns, passes and channels, and what a point costs.

    python tools/benchmarks/learning_curve.py COUNTS TRUTH [--patterns 1024 4096] [--passes 2 8 20]
        [--channels 16 32] [--device cpu] [--max-seconds 1800] [--out curve.csv]

COUNTS and TRUTH are those of a scene at a level, as a run of config/paper.yaml with `keep_counts`
leaves them. Every point trains anew on patterns spread evenly over the scan, the other settings
those of the config. The error is the mean absolute error of exx, eyy and exy over the positions on
the published levels, beside that of no strain and of the bound. A point that would take longer than
`--max-seconds`, by the cost of the last one, is left out.

Below the table: the slope of log(error) over log(FLOPs), and where that line would meet the error
given by `--reach`. A line through few points says little beyond them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ccstae.evaluation.metrics import compare
from ccstae.evaluation.published import NORMAL_MAE, on_strain_levels
from ccstae.io.counts import Counts, read_counts
from ccstae.io.truth import Truth, read_truth
from ccstae.methods.ccstae_2023 import method
from ccstae.methods.ccstae_2023.settings import Ccstae2023Settings

SCALED_DOWN = {"pools": (5, 2, 1), "binning": 4, "batch": (16, 16), "learning_rate": (1e-3, 1e-3)}
"""As in config/paper.yaml."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--patterns", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--passes", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-seconds", type=float, default=1800)
    parser.add_argument("--reach", type=float, help="an error to extrapolate to")
    parser.add_argument("--out", type=Path, help="also write the points as CSV")
    options = parser.parse_args()
    counts, truth = read_counts(options.counts), read_truth(options.truth)
    bound = truth.bound.get(options.counts.name.rsplit(".", 2)[0])
    points: list[dict[str, float]] = []
    print(
        "patterns  passes  channels  seconds   TFLOP    error  no strain    bound   (errors: 1e-4)"
    )
    grid = product(options.patterns, options.passes, options.channels)
    per_cost = 0.0
    for patterns, passes, channels in sorted(grid, key=lambda point: _cost(*point)):
        if patterns > truth.label.size:
            print(f"{patterns:8d}  the scan holds {truth.label.size}", file=sys.stderr)
            continue
        if per_cost * _cost(patterns, passes, channels) > options.max_seconds:
            print(f"{patterns:8d}  {passes:6d}  {channels:8d}  would take too long")
            continue
        point = measured(counts, truth, bound, patterns, passes, channels, options.device)
        per_cost = point["seconds"] / _cost(patterns, passes, channels)
        points.append(point)
        print(
            f"{patterns:8d}  {passes:6d}  {channels:8d}  {point['seconds']:7.0f}  "
            f"{point['flops'] / 1e12:6.2f}  {point['error'] * 1e4:7.2f}  "
            f"{point['no_strain'] * 1e4:9.2f}  {point['bound'] * 1e4:7.2f}",
            flush=True,
        )
    table = pd.DataFrame(points)
    if options.out and points:
        table.to_csv(options.out, index=False, float_format="%.6g", lineterminator="\n")
    if len(points) > 2:
        slope, at_1 = np.polyfit(np.log(table["flops"]), np.log(table["error"]), 1)
        print(f"error ~ FLOPs^{slope:.2f}")
        if options.reach and slope < 0:
            flops = np.exp((np.log(options.reach) - at_1) / slope)
            print(f"would reach {options.reach * 1e4:.1f}e-4 at {flops / 1e12:.3g} TFLOP")


def measured(
    counts: Counts,
    truth: Truth,
    bound: np.ndarray | None,
    patterns: int,
    passes: int,
    channels: int,
    device: str,
) -> dict[str, float]:
    """One point: train, map, and hold against the truth."""
    rows = np.linspace(0, truth.label.size - 1, patterns).round().astype(int)

    def chosen(values: np.ndarray) -> np.ndarray:
        """Of the scan, as one row of `patterns` positions."""
        return values.reshape(-1, *values.shape[2:])[rows][None]

    given = replace(counts, counts=chosen(counts.counts))
    arrays = ("F", "F_probe", "label", "region", "reference")
    known = replace(truth, **{name: chosen(getattr(truth, name)) for name in arrays})
    settings = Ccstae2023Settings(
        channels=channels, epochs=(max(passes // 4, 1), passes), **SCALED_DOWN
    )
    begin = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        answer = method.map_strain(given, settings, device)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    compared = compare(known, answer.F)
    on_levels = on_strain_levels(compared.truth)
    return {
        "patterns": patterns,
        "passes": passes,
        "channels": channels,
        "seconds": seconds,
        "flops": float(counter.get_total_flops()),
        "error": float(np.abs(compared.error[on_levels, :3]).mean()),
        "no_strain": float(np.abs(compared.truth[on_levels, :3]).mean()),
        "bound": 0.0 if bound is None else NORMAL_MAE * float(chosen(bound)[on_levels, :3].mean()),
    }


def _cost(patterns: int, passes: int, channels: int) -> float:
    """What the time of a point goes with: convolutions of so many channels."""
    return float(patterns * passes * channels**2)


if __name__ == "__main__":
    main()
