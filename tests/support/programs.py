"""A config with methods to run, and programs from outside to be one of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from ccstae.config.run import Config, parse

OUTSIDE = """
import argparse, json, h5py, numpy as np
parser = argparse.ArgumentParser()
for name in ("--counts", "--map", "--settings"):
    parser.add_argument(name)
given = parser.parse_args()
with h5py.File(given.counts) as file:
    scan = file["counts"].shape[:2]
with h5py.File(given.map, "w") as file:
    scale = json.loads(given.settings).get("scale", 1.0)
    file["F"] = np.broadcast_to(np.eye(2) * scale, (*scan, 2, 2))
"""


def configured(methods: dict[str, Any]) -> Config:
    return parse(
        {
            "name": "made",
            "device": "cpu",
            "materials": {
                "WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153},
                "WSe2": {"prototype": "mx2-2h", "species": ["W", "Se"], "a_A": 3.282},
            },
            "scenes": {"made": {"kind": "heterostructure", "materials": ["WS2", "WSe2"]}},
            "noise": {"dose": {"electrons": [1e5]}},
            "methods": methods,
        }
    )


def python(code: str, folder: Path) -> str:
    script = folder / "a program.py"
    script.write_text(code)
    return shlex.join([sys.executable, str(script)])
