"""LiberTEM-blobfinder, as in its strain example: correlation in crops round the known lattice, DFT
upsampling, its own lattice match.

Settings: `pattern` (radial-gradient, background or probe), `upsample`, `match` (fast or affine),
`correlation` (fast or fullframe), `search` (over the disk radius), `tolerance` (px) and
`min_weight` of its matcher.
"""

from __future__ import annotations

from typing import Any

import libertem.api as lt
import numpy as np
from adapter import THREADS, Found, Scan, main, with_defaults
from libertem_blobfinder.common import gridmatching, patterns
from libertem_blobfinder.udf import refinement

CONTEXT = (
    lt.Context.make_with("inline")
    if THREADS == 1
    else lt.Context.make_with("dask", cpus=THREADS, gpus=0)
)
DEFAULTS = {
    "pattern": "radial-gradient",
    "upsample": 20,
    "match": "affine",
    "correlation": "fast",
    "search": 2.0,
    "tolerance": 3.0,
    "min_weight": 0.0,
}


def map_strain(scan: Scan, settings: dict[str, Any]) -> Found:
    settings = with_defaults(settings, DEFAULTS)
    radius, search = scan.radius_px, settings["search"] * scan.radius_px
    half = int(np.ceil(search))
    cx, cy = np.rint(scan.centre_px).astype(int)
    pattern = {
        "radial-gradient": lambda: patterns.RadialGradientBackgroundSubtraction(
            radius, search=search
        ),
        "background": lambda: patterns.BackgroundSubtraction(radius, search=search),
        "probe": lambda: patterns.UserTemplate(
            scan.probe[cy - half : cy + half, cx - half : cx + half], search=search
        ),
    }[settings["pattern"]]()
    a, b = scan.lattice_px.T[:, ::-1]  # (y, x)
    dataset = CONTEXT.load("memory", data=scan.counts, sig_dims=2, num_partitions=THREADS)
    result, _ = refinement.run_refine(
        CONTEXT,
        dataset,
        zero=scan.centre_px[::-1],
        a=a,
        b=b,
        match_pattern=pattern,
        matcher=gridmatching.Matcher(
            tolerance=settings["tolerance"], min_weight=settings["min_weight"]
        ),
        correlation=settings["correlation"],
        match=settings["match"],
        indices=scan.nodes(),
        upsample=settings["upsample"],
    )
    G = np.stack([result["a"].data[..., ::-1], result["b"].data[..., ::-1]], -1)
    return Found(G.astype(np.float64))


if __name__ == "__main__":
    main("libertem-blobfinder", map_strain, warm_up=True)
    CONTEXT.close()
