"""Patterns a second: the windows of ccstae against abTEM's Probe.scan, in one run on one machine.

    python tests/benchmarks/bench_simulate.py [--patterns 256] [--threads 2] [--config config/default.yaml]

abTEM gets the smallest cell that holds the same window, on the same grid and in one slice, and its potential for nothing; of its
eager and lazy modes the faster one counts. Ours are binned on the detector and bring their two gradients; abTEM's are not binned.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--patterns", type=int, default=256)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--config", type=Path, default=Path(__file__).parents[2] / "config" / "default.yaml")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch, FFTW and numba start their threads

import abtem  # noqa: E402
import ase  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from ccstae import optics, scenes, simulate  # noqa: E402
from ccstae.config import load  # noqa: E402

BATCH = 64


def main() -> None:
    torch.set_num_threads(options.threads)
    config = load(options.config)
    scene = scenes.build(config, next(iter(config.scenes)))
    win = optics.window(config.microscope, config.simulation)
    side = int(np.ceil(np.sqrt(options.patterns)))
    drawer = simulate.Renderer(config, win)
    corner = np.full(2, -win.width_A / 2)
    square = (win.samples, win.samples)
    drawer.transmission(scene, corner, square)  # caches
    potential = timed(lambda: drawer.transmission(scene, corner, square))
    windows = drawer.transmission(scene, corner, square).expand(BATCH, -1, -1)
    offset = torch.zeros(BATCH, 2, dtype=torch.float64)
    batches = -(-(side**2) // BATCH)
    drawer.patterns(windows, offset)  # plans
    seconds = timed(lambda: [drawer.patterns(windows, offset) for _ in range(batches)])
    ours = batches * BATCH / seconds
    print(f"{options.threads} threads, {side**2} patterns, {win.samples} x {win.samples} samples, {win.width_A:.1f} A")
    print(f"ccstae                {ours:8.1f} patterns/s ({potential:.2f} s more for the potential of one window)")
    theirs = 0.0
    for name, lazy in (("eager", False), ("lazy", True)):
        rate = abtem_rate(config, scene, win, side, lazy)
        theirs = max(theirs, rate)
        print(f"abTEM Probe.scan {name:5s}{rate:8.1f} patterns/s")
    print(f"ratio                 {ours / theirs:8.1f}")


def timed(task) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def abtem_rate(config, scene, win: optics.Window, side: int, lazy: bool) -> float:  # type: ignore[no-untyped-def]
    """Patterns a second of abTEM over side x side positions."""
    half = win.width_A / 2
    at, numbers = scene.atoms((-half, -half, half, half))
    height = float(np.ptp(at[:, 2])) + 2
    atoms = ase.Atoms(numbers=numbers, positions=at - [-half, -half, at[:, 2].min() - 1], cell=[win.width_A, win.width_A, height])
    with abtem.config.set({"diagnostics.progress_bar": False, "num_workers": options.threads, "fftw.threads": options.threads}):
        cell = abtem.Potential(atoms, gpts=win.samples, slice_thickness=height, projection="infinite").build(lazy=False)
        m = config.microscope
        probe = abtem.Probe(energy=m.energy_keV * 1e3, semiangle_cutoff=m.semiangle_mrad, gpts=win.samples, extent=win.width_A)
        scan = abtem.GridScan(start=(half - 20, half - 20), end=(half + 20, half + 20), gpts=side)
        detector = abtem.PixelatedDetector(max_angle="cutoff")

        def task() -> None:
            measured = probe.scan(cell, scan=scan, detectors=detector, max_batch=BATCH, lazy=lazy)
            if lazy:
                measured.compute()

        timed(task)  # plans
        return side**2 / timed(task)


if __name__ == "__main__":
    main()
