"""Time and peak memory of `ccstae map` against the number of positions, one process a map.

    python tools/benchmarks/memory.py [--sizes 32 128] [--pixels 200] [--methods com template]
        [--electrons 1e4] [--to DIR]

Sizes are of square scans: 128 has 16,384 positions. The counts are Poisson draws of 64 ideal
patterns with a quarter of their electrons in the background, over and over. The files are removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ccstae.io.counts import write_counts
from ccstae.simulation.ideal import IdealCrystal, random_deformations

CONFIG = str(Path(__file__).parents[2] / "config" / "ci.yaml")
DISTINCT = (8, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--pixels", type=int, default=200)
    parser.add_argument("--methods", nargs="+", default=["com", "template"])
    parser.add_argument("--electrons", type=float, default=1e4)
    parser.add_argument("--to", type=Path, help="where the files lie meanwhile")
    options = parser.parse_args()
    model = IdealCrystal(px=options.pixels)
    drawn = model.counts(random_deformations(DISTINCT), options.electrons, 0.25)
    patterns = drawn.counts.reshape(-1, *drawn.detector)
    print("positions   file MiB   method      seconds   patterns/s   peak memory GiB", flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.to) as folder:
            path = Path(folder, "counts.h5")
            rows = (
                patterns[np.arange(row * size, (row + 1) * size) % len(patterns)]
                for row in range(size)
            )
            shape = (size, size, *drawn.detector)
            write_counts(path, rows, shape, drawn.calibration, drawn.probe)
            for method in options.methods:
                seconds, peak_GiB = mapped(folder, method)
                print(
                    f"{size**2:9d}{path.stat().st_size / 2**20:11.0f}   {method:12s}"
                    f"{seconds:7.0f}{size**2 / seconds:13.0f}{peak_GiB:18.2f}",
                    flush=True,
                )


def mapped(folder: str, method: str) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a map of the counts in a folder."""
    words = ["map", CONFIG, method, "--counts", f"{folder}/counts.h5", "--out", f"{folder}/map.h5"]
    command = [sys.executable, "-c", "from ccstae.cli import main; main()", "--threads", "1"]
    start = time.perf_counter()
    process = subprocess.Popen(command + words, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{method}: the map ended with code {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
