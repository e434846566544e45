"""Rivals that see neighbours, in their own environments; skipped where these are missing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from synthetic import Model, errors

from ccstae import geometry
from ccstae.io.counts import write_counts
from ccstae.methods import external

ROOT = Path(__file__).parents[2]
MODEL = Model()


def run(environment: str, script: str, out: str, counts: Path, settings: dict[str, Any]) -> Path:
    state = ROOT / external.interpreter(environment)
    python = state.read_text().strip() if state.is_file() else "never made"
    if not Path(python).is_file():
        pytest.skip(f"the environment {environment}: {python}; `make neighbours` makes it")
    made = counts.with_name(f"{out}.h5")
    words = ["--counts", str(counts), f"--{out}", str(made), "--settings", json.dumps(settings)]
    subprocess.run([python, str(ROOT / "peers" / script), *words], check=True, capture_output=True)
    return made


def halves(tmp_path: Path, shape: tuple[int, int]) -> tuple[Path, np.ndarray]:
    """Counts of two crystals side by side."""
    F = np.broadcast_to(np.eye(2), (*shape, 2, 2)).copy()
    F[:, shape[1] // 2 :] = geometry.deformation(0.03, 0.01, 0.0, 0.1)
    made = MODEL.counts(F, 1e5, 0.25, seed=3)
    path = tmp_path / "counts.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    return path, made.counts.astype(float)


@pytest.mark.parametrize("stem_scale", [False, True])
def test_nlpar_averages_what_is_alike_and_nothing_else(tmp_path: Path, stem_scale: bool) -> None:
    path, counts = halves(tmp_path, (6, 8))
    settings = {"lam": 0.7, "radius": 2, "stem_scale": stem_scale}
    with h5py.File(run("nlpar", "run_nlpar.py", "out", path, settings)) as file:
        averaged = file["counts"][...]
        assert file["counts"].dtype == np.float32
    left = counts[:, :4].mean((0, 1))  # the best there is to compare with
    away = left < 50  # of the direct beam
    before = ((counts[:, :4] - left)[..., away] ** 2).mean()
    after = ((averaged[:, :4] - left)[..., away] ** 2).mean()
    assert after < 0.4 * before
    right = counts[:, 4:].mean((0, 1))
    mixed = ((averaged[:, :4] - left) * (right - left))[..., away].sum() / (
        24 * ((right - left)[away] ** 2).sum()
    )
    assert abs(mixed) < 0.05  # the share of the other crystal


def test_nlpar_takes_no_setting_that_it_does_not_know(tmp_path: Path) -> None:
    path, _ = halves(tmp_path, (6, 8))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run("nlpar", "run_nlpar.py", "out", path, {"lambda": 0.7})
    assert b"unknown settings ['lambda']; expected some of ['dthresh'" in refused.value.stderr
    assert not (tmp_path / "out.h5").exists()


def test_py4dstem_averages_as_its_users_do(tmp_path: Path) -> None:
    """Its own 3 x 3 weights lower the scatter of one crystal to the root of 36 / 256."""
    F = np.broadcast_to(geometry.deformation(0.01, 0.0, 0.0, 0.02), (5, 6, 2, 2))
    made = MODEL.counts(F, 1e5, 0.25, seed=5)
    path = tmp_path / "counts.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    rms = {}
    for average in (False, True):
        settings = {"kernel": "sigmoid", "sigma_cc": 0, "subpixel": "poly", "average": average}
        with h5py.File(run("py4dstem", "run_py4dstem.py", "map", path, settings)) as file:
            rms[average] = np.sqrt((errors(file["F"][...], F)[1:-1, 1:-1] ** 2).mean())
    assert 0.2 < rms[True] / rms[False] < 0.6


def test_the_weights_of_py4dstem_s_fit_are_its_intensities_to_a_power(tmp_path: Path) -> None:
    F = np.broadcast_to(geometry.deformation(0.01, 0.0, 0.0, 0.02), (2, 3, 2, 2))
    made = MODEL.counts(F, 1e4, seed=5)
    path = tmp_path / "counts.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    answers = []
    for power in (None, 1.0, 0.5):
        settings = {"kernel": "sigmoid", "sigma_cc": 0, "subpixel": "poly"}
        settings |= {} if power is None else {"weights_power": power}
        with h5py.File(run("py4dstem", "run_py4dstem.py", "map", path, settings)) as file:
            answers.append(file["F"][...])
    np.testing.assert_array_equal(answers[0], answers[1])
    assert 1e-6 < np.abs(answers[2] - answers[0]).max() < 0.02
