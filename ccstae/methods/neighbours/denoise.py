"""`denoise`: patterns averaged over neighbouring positions, before any method sees them.

What comes out is no longer a count of its own: its variance is below that of Poisson's law, and
neighbours share their noise. Methods that take positions and fit lattices do not mind. One that
models the counts, as `ccstae` does, then states uncertainties that are not its own.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.neighbours import Denoise, Gauss, Program
from ccstae.errors import InputError
from ccstae.io.counts import Counts, read_counts
from ccstae.methods import external
from ccstae.methods.neighbours import blur


def denoised(counts: Counts, stage: Denoise, method_id: str) -> Counts:
    """The same scan with patterns in float32 that neighbours have averaged.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        stage: how.
        method_id: whose stage it is, for messages.

    Raises:
        InputError: where a program fails, or gives patterns of another shape.
    """
    if isinstance(stage, Program):
        return replace(counts, counts=_by_program(counts, stage, method_id))
    patterns = counts.held()
    if isinstance(stage, Gauss):
        return replace(counts, counts=blurred(patterns, stage.width_steps))
    return replace(counts, counts=low_rank(patterns, stage.scan_rank, stage.pattern_rank))


def blurred(patterns: NDArray[Any], width_steps: float) -> NDArray[np.float32]:
    """Every pattern as the mean of its neighbours with Gaussian weights.

    At the borders of the scan the mean is of those that are there. A mean of Poisson counts N_i
    with weights w_i has the variance sum w_i^2 E N_i, which for equal patterns is E N / (4 pi
    width^2) from a width of one step on.

    Args:
        patterns: (Ry, Rx, Qy, Qx).
        width_steps: standard deviation of the Gaussian in steps of the scan.
    """
    weights = blur.kernel(width_steps)
    total = blur.averaged(np.ones(patterns.shape[:2]), weights)[..., None]
    out = np.empty(patterns.shape, np.float32)
    for row in range(patterns.shape[2]):  # of the detector, so that little is held at a time
        out[:, :, row] = blur.averaged(patterns[:, :, row].astype(np.float64), weights) / total
    return out


def low_rank(patterns: NDArray[Any], scan_rank: int, pattern_rank: int) -> NDArray[np.float32]:
    """Patterns truncated to few independent rows and columns of the scan and few independent
    patterns: the sequential form of the higher-order SVD (N. Vannieuwenhoven, R. Vandebril and K.
    Meerbergen, SIAM J. Sci. Comput. 34, A1027 (2012)), as used for 4D-STEM by C. Zhang et al.,
    Ultramicroscopy 219, 113123 (2020).

    Args:
        patterns: (Ry, Rx, Qy, Qx).
        scan_rank: rows, and columns, of the scan; all where it has fewer.
        pattern_rank: patterns; all where there are fewer.
    """
    rows, columns = patterns.shape[:2]
    scan = patterns.reshape(rows, columns, -1).astype(np.float64)
    of_rows = _leading(scan.reshape(rows, -1), scan_rank)
    core = np.tensordot(of_rows, scan, (0, 0))  # (r, columns, pixels)
    of_columns = _leading(np.moveaxis(core, 1, 0).reshape(columns, -1), scan_rank)
    core = np.tensordot(of_columns, core, (0, 1))  # (c, r, pixels)
    flat = core.reshape(-1, core.shape[2])
    of_patterns = _leading(flat, pattern_rank)
    core = (of_patterns @ (of_patterns.T @ flat)).reshape(core.shape)
    out = np.einsum("yr,xc,crq->yxq", of_rows, of_columns, core, optimize=True)
    return out.reshape(patterns.shape).astype(np.float32)


def _leading(unfolded: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The left singular vectors (n, rank) of the largest singular values of (n, m), m > n."""
    vectors = np.linalg.eigh(unfolded @ unfolded.T)[1]
    return vectors[:, ::-1][:, :rank]


def _by_program(counts: Counts, stage: Program, method_id: str) -> NDArray[np.float32]:
    """What a program makes of the counts file of a scan: started as a method is, as
    `<command> --counts FILE --out FILE --settings JSON`.
    """
    with external.as_file(counts) as given, tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        out = Path(folder) / "counts.h5"
        named = f"{method_id}.denoise"
        words = external.command_words(named, stage.command, stage.environment)
        words += ["--counts", str(given.resolve()), "--out", str(out)]
        words += ["--settings", json.dumps(stage.settings)]
        printed = external.execute(named, words, folder, stage.time_limit_s)
        if not out.exists():
            raise InputError(
                f"methods.{named}: the command wrote no counts file; expected one at the path "
                f"after --out{printed}"
            )
        made = read_counts(out).held()
    if made.shape != counts.counts.shape:
        raise InputError(
            f"methods.{named}: the command wrote counts of shape {made.shape}; expected "
            f"{counts.counts.shape}"
        )
    return made.astype(np.float32, copy=False)
