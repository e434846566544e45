"""One setting for every material, and no truth in reach: the method on simulated scenes that it was
not made on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_run import drawn_counts

from ccstae.config.run import Config, dump, parse
from ccstae.evaluation.metrics import compare
from ccstae.io import layout
from ccstae.io.maps import Map, read_map
from ccstae.io.truth import Truth, read_truth

CONFIG = """
name: other
device: cpu
microscope: {energy_keV: 80, semiangle_mrad: 3, pixel_size_inv_A: 0.0135, detector_px: 96}
materials:
  MoS2: {prototype: mx2-2h, species: [Mo, S], a_A: 3.160, thickness_A: 3.17}
  MoSe2: {prototype: mx2-2h, species: [Mo, Se], a_A: 3.289, thickness_A: 3.34}
  graphene: {prototype: graphene, species: [C], a_A: 2.464}
scenes:
  junction:
    kind: heterostructure
    materials: [MoS2, MoSe2]
    scan: {shape: [7, 9], step_A: 44}
    interface_A: 0
    interface_width_A: 0
    relaxation_A: 900
    edge_offset_A: null
    reference_A: [-200, -180, -80, 180]
  sheet: {kind: ramp, materials: [graphene], scan: {shape: [8, 8], step_A: 48}, lattice_deg: 17}
methods: {ccstae: }
seeds: {test: [1], tune: []}
"""


def made(
    scene: str, electrons: float, folder: Path, **microscope: float
) -> tuple[Config, Path, Truth]:
    """The scene's counts and truth, simulated into a folder laid out as a run's."""
    data = yaml.safe_load(CONFIG)
    data["microscope"] |= microscope
    data["scenes"] = {scene: data["scenes"][scene]}
    data["noise"] = {"level": {"background": 0.25, "electrons": electrons}}
    given = parse(data)
    counts = drawn_counts(given, scene, folder)
    return given, counts, read_truth(layout.truth_path(folder, scene))


def mapped(given: Config, counts: Path, out: Path, folder: Path) -> Map:
    """The map that `ccstae map` makes, run in this folder."""
    words = [
        sys.executable,
        "-c",
        "from ccstae.cli import main; main()",
        "--threads",
        "1",
        "map",
        "-",
        "ccstae",
    ]
    words += ["--counts", str(counts), "--out", str(out)]
    done = subprocess.run(
        words, cwd=folder, input=dump(given), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return read_map(folder / out)


def ratio(answer: Map, truth: Truth, given: Config) -> np.ndarray:
    """Root mean square over the interior of each component's error over its bound, (4,)."""
    found = compare(truth, answer.F)
    inside = truth.region == truth.regions.index("interior")
    return np.sqrt(((found.error / truth.bound[given.levels[0].name])[inside] ** 2).mean(0))


@pytest.mark.long
def test_another_pair_of_materials_with_the_same_settings_and_no_truth_in_reach(
    tmp_path: Path,
) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    given, counts, truth = made("junction", 1e5, run)
    beside = mapped(given, counts, Path("map.h5"), run)
    alone.mkdir()
    shutil.copy(counts, alone / "counts.h5")
    shutil.rmtree(run)
    answer = mapped(given, Path("counts.h5"), Path("map.h5"), alone)
    for name in ("F", "covariance", "label", "centre_px", "dictionary"):
        assert getattr(answer, name).tobytes() == getattr(beside, name).tobytes(), name
    assert len(truth.label[truth.label < 1]) < 15  # both materials, few positions where they mix
    assert np.isfinite(answer.F).all()
    # 60 patterns know a standard deviation to 9 %, and teach the dictionary little.
    assert (ratio(answer, truth, given) < 1.4).all()


def test_graphene_with_the_same_settings(tmp_path: Path) -> None:
    given, counts, truth = made("sheet", 1e6, tmp_path, pixel_size_inv_A=0.0185)
    answer = mapped(given, counts, Path("map.h5"), tmp_path)
    assert np.isfinite(answer.F).all()
    assert (ratio(answer, truth, given) < 1.4).all()
