"""Processor time and peak memory of pooling neighbours against the number of positions, one process
a size, and the error it leaves.

    python tools/benchmarks/pooling.py [--sizes 64 128 256] [--threads 2] [--deviation 0.006]

Sizes are of square scans: 256 has 65,536 positions. The lattices are those of a displacement made
of waves of 9 to 25 steps, with noise; no pattern is made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae.methods.ccstae_pooled.pool import pool

Array = NDArray[np.float64]


def waves(size: int) -> Array:
    """Lattices (size^2, 4): M = 1 - grad u, u made of six waves."""
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(float)
    M = np.tile(np.eye(2), (size, size, 1, 1))
    for _ in range(6):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        direction = np.array([np.cos(angle), np.sin(angle)])
        along = x @ direction * 2 * np.pi / rng.uniform(9, 25) + phase
        M -= direction[:, None] * (0.01 * np.cos(along)[..., None, None] * rng.standard_normal(2))
    return M.reshape(-1, 4)


def measure(size: int, threads: int, deviation: float) -> str:
    """A row of the table."""
    torch.set_num_threads(threads)
    truth = waves(size)
    noise = deviation * np.random.default_rng(1).standard_normal(truth.shape)
    information = np.tile(np.eye(4) / deviation**2, (len(truth), 1, 1))
    begun, busy = time.perf_counter(), time.process_time()
    found = pool(truth + noise, information, np.ones((size, size), bool), 6, 0)
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    error = np.sqrt(np.mean((found.M - truth) ** 2)) / deviation
    peak_GiB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{size**2:9d}{seconds:10.0f}{busy:20.0f}{peak_GiB:18.2f}{error:26.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deviation", type=float, default=0.006, help="of single patterns")
    options = parser.parse_args()
    print("positions   seconds   processor seconds   peak memory GiB   error of single patterns'")
    context = multiprocessing.get_context("spawn")  # a process each, so that peaks are their own
    for size in options.sizes:
        with context.Pool(1) as process:
            print(
                process.apply(measure, (size, options.threads, options.deviation)),
                flush=True,
            )


if __name__ == "__main__":
    main()
