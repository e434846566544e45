"""The simulator on the stand-in of a GPU: it mixes no devices and draws the CPU's patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import SMALL, WARM, made
from stand_in_gpu import stand_in_gpu

from ccstae.simulation import simulate

SCENE = {
    "kind": "heterostructure",
    "scan": {"shape": [2, 2], "step_A": 40},
    "reference_A": [-30, -30, 0, 30],
}
NUISANCES = {"distortion": [[1.02, 0.0], [0.0, 1.0]], "descan_px": [[0.01, 0.0], [0.0, 0.01]]}


@pytest.mark.parametrize("changes", [{}, {"nuisances": NUISANCES}], ids=["ideal", "distorted"])
def test_patterns_on_a_gpu_are_those_of_the_cpu(changes: dict[str, Any]) -> None:
    config, scene = made(SCENE, microscope=SMALL | changes, materials=WARM)
    expected = simulate.renderer(config, scene, "cpu").tile(scene, scene.positions)
    with stand_in_gpu() as ran:
        found = simulate.renderer(config, scene, "cuda").tile(scene, scene.positions)
    assert ran.operations["_fft_c2c"] > 0
    for on_cpu, on_gpu in zip(expected, found, strict=True):
        assert np.abs(on_gpu - on_cpu).max() < 1e-5 * np.abs(on_cpu).max()
