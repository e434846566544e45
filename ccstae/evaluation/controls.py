"""Positive controls: maps made by what no method may see. They are no methods, and tables say so.

* `oracle` answers the truth itself. Its errors are exactly zero; where they are not, the scores are
  wrong.
* `oracle-shape` is `ccstae` that has learned the shape of the disks, their intensities and the
  background from the patterns before any noise was drawn. It shows what a method that takes each
  pattern alone can attain, and what learning from noisy counts costs `ccstae`.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.errors import InputError, unknown
from ccstae.io.calibration import read_calibration
from ccstae.io.counts import Counts, read_counts
from ccstae.io.hdf5 import dataset, opened
from ccstae.io.maps import Map, write_map
from ccstae.io.scene import clean_patterns
from ccstae.io.truth import read_truth
from ccstae.machine.device import resolve
from ccstae.methods.base import Answer
from ccstae.methods.run import peak_memory_bytes, versions
from ccstae.simulation.camera import camera_of
from ccstae.simulation.noise import expectation


def write(
    config: Config,
    row_id: str,
    scene: str,
    level_name: str,
    counts_path: Path,
    clean_path: Path,
    truth_path: Path,
    map_path: Path,
) -> None:
    """Make the map of a positive control and write it.

    Args:
        config: of the run.
        row_id: of the entry under `methods:`.
        scene: which of its scenes.
        level_name: which of its noise levels.
        counts_path: the noisy counts.
        clean_path: the scene's clean patterns.
        truth_path: the scene's truth.
        map_path: where the map goes.

    Raises:
        InputError: for an entry that is no such control, or a file that is missing or unfit.
    """
    control = config.control(row_id)
    if control is None:
        positive = [row for row in config.methods if config.control(row)]
        raise InputError(unknown("positive control", row_id, positive))
    device = resolve(config.device)
    begun = time.perf_counter()
    if control == "oracle":
        truth = read_truth(truth_path)
        answer, device = Answer(truth.F_probe, label=truth.label), "cpu"
    else:
        counts = read_counts(counts_path)
        expected = expected_counts(config, scene, config.level(level_name), clean_path)
        answer = taught(counts, expected, device)
    attributes = {
        "method": row_id,
        "settings": "{}",
        "found": json.dumps(answer.found),
        "seconds": time.perf_counter() - begun,
        "device": device,
        "peak_memory_bytes": peak_memory_bytes(device),
        "versions": json.dumps(versions()),
    }
    write_map(map_path, Map(answer.F, attributes, answer.covariance, answer.label))


def expected_counts(
    config: Config, scene: str, level: Level, clean_path: Path
) -> NDArray[np.uint32]:
    """What the patterns of a scene hold at a noise level before noise is drawn, (Ry, Rx, Qy, Qx),
    in so many electrons that rounding is nothing.
    """
    without_noise = level.model_copy(update={"electrons": np.inf})
    with opened(clean_path) as file:
        patterns = dataset(file, "patterns", 4, "f")
        calibration = read_calibration(file)
        camera = camera_of(
            config.of_scene(scene).microscope, calibration, config.scenes[scene].scan
        )
        out = np.empty(patterns.shape, np.uint32)
        columns = np.arange(patterns.shape[1])
        for row in range(len(out)):
            here = camera.noise_free.at((row, columns))
            out[row] = np.rint(expectation(clean_patterns(patterns, row), without_noise, here))
    return out


def taught(counts: Counts, expected: NDArray[Any], device: str) -> Answer:
    """`ccstae` on noisy counts, with what it has learned from those that were expected.

    Raises:
        InputError: where these hold no lattice.
    """
    from ccstae.methods.ccstae import method as ccstae
    from ccstae.methods.ccstae.settings import CcstaeSettings

    model = ccstae.learn(replace(counts, counts=expected), CcstaeSettings(), device)
    if model is None:
        raise InputError(
            f"{counts.path}: no pattern holds a lattice; expected a scan to learn from"
        )
    return ccstae.apply(model, counts, device)
