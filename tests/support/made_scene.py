"""Scenes made of a few settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ccstae.config.run import Config, load, parse
from ccstae.specimen.build import build_scene

ROOT = Path(__file__).parents[2]
EVERY = load(ROOT / "config" / "scenes.yaml")
SCAN = {"shape": [8, 8], "step_A": 40}
RIGHT = {
    "kind": "heterostructure",
    "materials": ["WS2", "WSe2"],
    "scan": SCAN,
    "edge_offset_A": None,
    "reference_A": [-200, -200, -60, 200],
}
LATTICE_A = 3.153


def config(**scene: Any) -> Config:
    data = EVERY.model_dump(mode="json")
    data["scenes"] = {"made": scene}
    return parse(data)


def build(**scene: Any) -> Any:
    return build_scene(config(**scene), "made")


DISLOCATED = build(
    **RIGHT,
    interface_A=0,
    interface_width_A=0,
    lattice_deg=90,
    dislocations={"core_A": 10},
    ripple={"height_A": 6, "wavelength_A": 150},
)


def metal(scene: Any, box: tuple[float, float, float, float]) -> np.ndarray:
    xyz, numbers = scene.atoms(box)
    return xyz[numbers == 74]
