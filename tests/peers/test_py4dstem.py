"""`template` with py4DSTEM's settings against py4DSTEM itself, on the same patterns. Skipped where
its environment is missing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ccstae import geometry
from ccstae.io.counts import read_counts, write_counts
from ccstae.methods import external
from ccstae.methods.shared import peaks, windows
from ccstae.methods.shared.lattice_sites import nodes, rings
from ccstae.methods.shared.sites import SiteFinder
from ccstae.methods.template import kernels
from ccstae.methods.template import method as template
from ccstae.methods.template.settings import TemplateSettings

ROOT = Path(__file__).parents[2]
from synthetic import Model, errors, random_deformations  # noqa: E402

STATE = ROOT / external.interpreter("py4dstem")
PYTHON = STATE.read_text().strip() if STATE.is_file() else "error: never made"
pytestmark = pytest.mark.skipif(
    not Path(PYTHON).is_file(), reason=f"py4DSTEM's environment: {PYTHON}; `make peers` makes it"
)

MODEL = Model()
TRUTH = random_deformations((4, 4))
SUBPIXEL = {"poly": "parabolic", "multicorr": "dft"}


@pytest.fixture(scope="module")
def counts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("counts") / "clean.h5"
    made = MODEL.counts(TRUTH)
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    return path


def theirs(script: str, counts: Path, out: Path, *, subpixel: str, words: bool) -> h5py.File:
    settings = json.dumps({"kernel": "flat", "subpixel": subpixel})
    named = (
        ["--counts", str(counts), "--map", str(out), "--settings", settings]
        if words
        else [str(counts), str(out), settings]
    )
    subprocess.run([PYTHON, str(ROOT / script), *named], check=True, capture_output=True)
    return h5py.File(out)


@pytest.mark.parametrize("subpixel", SUBPIXEL)
def test_disk_positions_agree(subpixel: str, tmp_path: Path, counts_path: Path) -> None:
    counts = read_counts(counts_path)
    settings = TemplateSettings(kernel="flat", subpixel=SUBPIXEL[subpixel])
    hk = nodes(counts.calibration, counts.counts.shape)
    finder = SiteFinder.learn(counts, "cpu")
    matcher = template.Matcher(
        torch.from_numpy(counts.probe),
        hk,
        rings(counts.calibration, hk),
        finder.tables.radius,
        torch.from_numpy(MODEL.G0 / MODEL.pixel_size_inv_A),
        settings,
    )
    patterns = torch.from_numpy(counts.counts.reshape(-1, *counts.probe.shape).astype(np.float32))
    maps = kernels.correlate(
        kernels.padded_spectrum(patterns, matcher.n), matcher.spectrum, 1.0, patterns.shape
    )
    G = geometry.inverse_transpose(TRUTH.reshape(-1, 2, 2)) @ MODEL.G0 / MODEL.pixel_size_inv_A
    sites = torch.from_numpy(MODEL.px // 2 + np.einsum("nij,sj->nsi", G, hk.numpy())).float()
    ours = peaks.subpixel(maps, peaks.near(maps, sites, 3.0), SUBPIXEL[subpixel], 16)[0].numpy()

    with theirs(
        "tests/peers/positions.py",
        counts_path,
        tmp_path / "peaks.h5",
        subpixel=subpixel,
        words=False,
    ) as file:
        found = file["peak"][...]
    on_detector = windows.inside(sites, finder.tables.radius + 1, counts.probe.shape).numpy()
    apart = []
    for n, (i, j) in enumerate(np.ndindex(TRUTH.shape[:2])):
        here = found[(found[:, 0] == i) & (found[:, 1] == j), 2:4]
        nearest = np.linalg.norm(ours[n][on_detector[n], None] - here, axis=-1).min(1)
        apart.append(nearest[nearest < 1.5])
    distance = np.concatenate(apart)
    assert len(distance) > 0.95 * on_detector.sum()
    assert np.median(distance) < 0.02


@pytest.mark.parametrize("subpixel", SUBPIXEL)
def test_strain_agrees(subpixel: str, tmp_path: Path, counts_path: Path) -> None:
    """To 0.5e-4 with `poly`. `multicorr` puts one disk in some hundred 0.6 px off on noise-free
    patterns (it stops at the border of the area that it upsamples), and its strain is then wrong by
    1e-3: there, ours must be nearer the truth.
    """
    with theirs(
        "peers/run_py4dstem.py", counts_path, tmp_path / "map.h5", subpixel=subpixel, words=True
    ) as file:
        peer = file["F"][...]
    ours = template.map_strain(
        read_counts(counts_path),
        TemplateSettings(kernel="flat", subpixel=SUBPIXEL[subpixel]),
        "cpu",
    ).F
    if subpixel == "poly":
        assert np.sqrt((errors(ours, geometry.to_branch(peer, ours, 6)) ** 2).mean()) < 0.5e-4
    assert np.abs(errors(ours, TRUTH)).max() <= np.abs(errors(peer, TRUTH)).max()
    assert (
        np.abs(errors(peer, TRUTH)).max() < 5e-3
    )  # theirs is right too: conventions, signs and indices


def test_grains_turned_against_each_other_are_indexed_each_with_its_own_lattice(
    tmp_path: Path,
) -> None:
    truth = random_deformations((2, 4), 0.01, 0.01)
    truth[:, 2:] = geometry.rotation_matrix(np.array(0.4)) @ truth[:, 2:]
    made = MODEL.counts(truth, 1e7)
    path = tmp_path / "counts.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    with theirs(
        "peers/run_py4dstem.py", path, tmp_path / "map.h5", subpixel="multicorr", words=True
    ) as answer:
        F, own = answer["F"][...], answer["own_strain"][...]
    assert np.abs(errors(F, truth)).max() < 5e-3
    # Its own strain is against the orientation in which the scan shows most.
    grain = np.arange(4) < np.full((2, 1), 2)
    own = geometry.regauge(geometry.deformation(*np.moveaxis(own, -1, 0)), grain)
    assert np.abs(errors(own, geometry.regauge(truth, grain))).max() < 5e-3
