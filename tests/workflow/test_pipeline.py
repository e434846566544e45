"""A material and a scene that are config entries and nothing else go through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from made_run import drawn_counts

from ccstae.config.run import parse
from ccstae.evaluation import score
from ccstae.io import layout
from ccstae.io.scores import read_scores
from ccstae.methods import run

# What a user would write: nothing here is known to the package.
MINE = """
name: mine
microscope: {energy_keV: 80, semiangle_mrad: 3, pixel_size_inv_A: 0.0135, detector_px: 96}
materials:
  MoS2: {prototype: mx2-2h, species: [Mo, S], a_A: 3.160, thickness_A: 3.17}
  MoSe2: {prototype: mx2-2h, species: [Mo, Se], a_A: 3.289, thickness_A: 3.34}
scenes:
  junction:
    kind: heterostructure
    materials: [MoS2, MoSe2]
    scan: {shape: [5, 6], step_A: 40}
    interface_A: 20
    interface_width_A: 0
    relaxation_A: 120
    edge_offset_A: null
    reference_A: [-110, -90, -50, 90]
  grains:
    kind: polycrystal
    materials: [MoS2]
    scan: {shape: [5, 6], step_A: 40}
    grains: 3
    rotation_range_deg: 10
  turned:
    kind: uniform
    materials: [MoSe2]
    scan: {shape: [5, 6], step_A: 40}
    exx: 0.01
    rotation_deg: 4
noise:
  series: {background: 0.25, electrons: 1.0e+7}
methods: {zero: , com: , ccstae: }
seeds: {test: [1], tune: []}
device: cpu
"""


@pytest.mark.parametrize("scene", ["junction", "grains", "turned"])
def test_entries_of_a_config_are_all_it_takes(scene: str, tmp_path: Path) -> None:
    data = yaml.safe_load(MINE)
    data["scenes"] = {scene: data["scenes"][scene]}
    config = parse(data)
    level = config.levels[0]
    counts = drawn_counts(config, scene, tmp_path)
    for method in config.methods:
        run.write(config, method, counts, layout.map_path(tmp_path, scene, level.name, 1, method))
    score.write(config, tmp_path, tmp_path / "metrics.csv")
    table = read_scores(tmp_path / "metrics.csv")
    errors = table[
        (table.metric == "rmse") & (table.quantity == "exx") & (table.region == "interior")
    ].set_index("method")["value"]
    assert np.isfinite(errors).all()
    assert errors["ccstae"] < 3e-3
    if scene != "turned":  # a uniform scene is its own reference
        assert errors["com"] < errors["zero"]
