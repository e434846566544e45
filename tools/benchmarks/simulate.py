"""Patterns a second: the windows of ccstae beside abTEM's Probe.scan, in one run on one machine.

    python tools/benchmarks/simulate.py [--patterns 256] [--rounds 5] [--threads 2]
        [--config config/default.yaml] [--scene ID]

abTEM gets the smallest cell that holds the same window, on the same grid and in one slice; of its
eager and lazy modes the faster one counts. The potential is built beforehand for both, and what a
tile of the scene takes with its potential is told beside that. Ours are binned on the detector; the
first row brings patterns alone, as abTEM does, the second their two gradients too. Every round
times each once, in turn; the median and the range over the rounds are told, of the time that passes
and of the processors' time, which others' load changes less.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--patterns", type=int, default=256)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument(
    "--config", type=Path, default=Path(__file__).parents[2] / "config" / "default.yaml"
)
parser.add_argument("--scene", help="the first of the config where left out")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(
    options.threads
)  # before torch, FFTW and numba start their threads

import abtem
import ase
import numpy as np
import torch

from ccstae import geometry
from ccstae.config.run import Config, load
from ccstae.machine import device
from ccstae.simulation import detector, optics, simulate
from ccstae.specimen.build import build_scene
from ccstae.specimen.scene import Scene

TOGETHER = 64  # patterns that abTEM holds at a time


def main() -> None:
    torch.set_num_threads(options.threads)
    abtem.config.set(
        {
            "diagnostics.progress_bar": False,
            "num_workers": options.threads,
            "fftw.threads": options.threads,
        }
    )
    config = load(options.config)
    scene = build_scene(config, options.scene or next(iter(config.scenes)))
    win = optics.window(config.microscope, config.simulation)
    drawer = simulate.Renderer(config, win, device.resolve(config.device))
    side = int(np.ceil(np.sqrt(options.patterns)))
    alone = copy.copy(drawer)
    alone.detect = detector.Detector(config.microscope, win, drawer.device, gradients=False)
    tasks = {
        "ccstae": ours(alone, scene, side**2),
        "ccstae, gradients too": ours(drawer, scene, side**2),
        **theirs(config, scene, win, side),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # plans and caches
    for _ in range(options.rounds):
        for name, task in tasks.items():
            seconds[name].append(timed(task))
    print(
        f"{options.threads} threads on {drawer.device}, {side**2} patterns, {win.samples} x "
        f"{win.samples} samples, {win.width_A:.1f} A"
    )
    for i, kind in enumerate(("of time", "of processor time")):
        rates = {name: side**2 / np.array(taken)[:, i] for name, taken in seconds.items()}
        for name, rate in rates.items():
            print(
                f"{name:24s}{told(rate)} patterns per second {kind}, {1e3 / np.median(rate):.2f} "
                f"ms each"
            )
        faster = max(
            (name for name in rates if name.startswith("abTEM")),
            key=lambda name: np.median(rates[name]),
        )
        print(f"{'ratio to the faster':24s}{told(rates['ccstae'] / rates[faster])}")
        print(f"{'    gradients too':24s}{told(rates['ccstae, gradients too'] / rates[faster])}")
    positions = geometry.scan_positions(scene.scan.shape, scene.scan.step_A)
    rows, columns = next(simulate.tiles_of(positions, drawer.tile_A, config.microscope.detector_px))
    tile = positions[rows, columns]
    count = tile.shape[0] * tile.shape[1]
    taken, busy = timed(lambda: drawer.tile(scene, tile))
    print(
        f"with the potential: a tile of {count} positions {scene.scan.step_A:g} A apart at "
        f"{count / taken:.1f} patterns per second of time,"
    )
    print(f"{count / busy:.1f} of processor time")


def ours(drawer: simulate.Renderer, scene: Scene, patterns: int) -> Callable[[], object]:
    """The task of as many patterns, at places and with offsets of their own, of windows whose
    transmission function is there.
    """
    n, step = drawer.win.samples, drawer.win.sampling_A
    slices = drawer.slices(scene, np.full(2, -(n + 32) / 2 * step), (n + 32, n + 32))
    random = np.random.default_rng(1)
    corner = random.integers(0, 32, (patterns, 2))
    offset = torch.from_numpy(random.uniform(-step / 2, step / 2, (patterns, 2)))
    batch = simulate.batch(drawer.win, drawer.device)

    def draw(part: slice) -> None:
        drawer.patterns([slices[:, y : y + n, x : x + n] for x, y in corner[part]], offset[part])

    return lambda: device.side_by_side(
        draw, [slice(start, start + batch) for start in range(0, patterns, batch)], drawer.device
    )


def theirs(
    config: Config, scene: Scene, win: optics.Window, side: int
) -> dict[str, Callable[[], object]]:
    """The tasks of abTEM over side x side positions."""
    half = win.width_A / 2
    at, numbers = scene.atoms((-half, -half, half, half))
    height = float(np.ptp(at[:, 2])) + 2
    atoms = ase.Atoms(
        numbers=numbers,
        positions=at - [-half, -half, at[:, 2].min() - 1],
        cell=[win.width_A, win.width_A, height],
    )
    cell = abtem.Potential(
        atoms, gpts=win.samples, slice_thickness=height, projection="infinite"
    ).build(lazy=False)
    m = config.microscope
    probe = abtem.Probe(
        energy=m.energy_keV * 1e3,
        semiangle_cutoff=m.semiangle_mrad,
        gpts=win.samples,
        extent=win.width_A,
    )
    scan = abtem.GridScan(start=(half - 20, half - 20), end=(half + 20, half + 20), gpts=side)
    camera = abtem.PixelatedDetector(max_angle="cutoff")

    def eager() -> object:
        return probe.scan(cell, scan=scan, detectors=camera, max_batch=TOGETHER, lazy=False)

    def lazy() -> object:
        return probe.scan(
            cell, scan=scan, detectors=camera, max_batch=TOGETHER, lazy=True
        ).compute()

    return {"abTEM Probe.scan, eager": eager, "abTEM Probe.scan, lazy": lazy}


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds that pass, and seconds of all processors together."""
    start, busy = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - start, time.process_time() - busy


def told(values: np.ndarray) -> str:
    return f"{np.median(values):8.1f} ({values.min():.1f} to {values.max():.1f})"


if __name__ == "__main__":
    main()
