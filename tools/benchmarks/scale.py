"""Time and memory of `ccstae simulate` against the number of positions, one process a size.

    python tools/benchmarks/scale.py [--sizes 16 32 64] [--threads 2]
        [--config config/paper.yaml] [--scene polycrystal] [--step-A 10] [--to DIR]

Sizes are of square scans: 256 is the 65,536 positions of the published geometry. A position takes
12 detector_px^2 bytes on disk (65,536 positions at 200 px: 31 GB). The files are removed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "paper.yaml")
    parser.add_argument("--scene", default="polycrystal")
    parser.add_argument("--step-A", type=float, default=10, help="from a position to the next")
    parser.add_argument("--pixels", type=int, help="detector_px in place of the config's")
    parser.add_argument("--to", type=Path, help="where the files lie meanwhile")
    options = parser.parse_args()
    data = yaml.safe_load(options.config.read_text())
    data["scenes"] = {options.scene: data["scenes"][options.scene]}
    if options.pixels:
        data["microscope"]["detector_px"] = options.pixels
    print("positions   seconds   processor seconds   processor ms/position   peak memory GiB")
    for size in options.sizes:
        data["scenes"][options.scene]["scan"] = {"shape": [size, size], "step_A": options.step_A}
        with tempfile.TemporaryDirectory(dir=options.to) as folder:
            config = Path(folder, "config.yaml")
            config.write_text(yaml.safe_dump(data))
            words = [
                "simulate",
                str(config),
                options.scene,
                "--out",
                f"{folder}/scene.h5",
                "--exact",
                f"{folder}/exact.h5",
            ]
            command = [
                sys.executable,
                "-c",
                "from ccstae.cli import main; main()",
                "--threads",
                str(options.threads),
                *words,
            ]
            start = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
        if status:
            sys.exit(
                f"size {size}: the simulation ended with code {os.waitstatus_to_exitcode(status)}"
            )
        print(row(size**2, seconds, used), flush=True)


def row(positions: int, seconds: float, used: resource.struct_rusage) -> str:
    busy = used.ru_utime + used.ru_stime
    each_ms, peak_GiB = 1e3 * busy / positions, used.ru_maxrss / 2**20
    return f"{positions:9d}{seconds:10.0f}{busy:20.0f}{each_ms:24.1f}{peak_GiB:18.2f}"


if __name__ == "__main__":
    main()
