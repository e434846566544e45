"""Run in py4DSTEM's own Python: disk positions that it finds, written as /peak (n, 5): row and
column of the scan, x, y, intensity.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "peers"))
import adapter
import run_py4dstem

counts, out, settings = sys.argv[1:]
scan = adapter.read(counts)
vectors = run_py4dstem.detect(scan, json.loads(settings))
rows = []
for i, j in np.ndindex(scan.counts.shape[:2]):
    found = vectors.raw[i, j].data
    rows += [
        (i, j, y, x, intensity)
        for x, y, intensity in zip(found["qx"], found["qy"], found["intensity"], strict=True)
    ]
with h5py.File(out, "w") as file:
    file["peak"] = np.array(rows)
