"""Bad pixels say nothing to any method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from synthetic import Model, errors, random_deformations

from ccstae.config.methods import Method
from ccstae.config.methods import settings as default_settings
from ccstae.io.counts import Counts, write_counts
from ccstae.io.maps import read_map
from ccstae.methods import base, external
from ccstae.methods.shared.filled import filler

MODEL = Model()
F = random_deformations((3, 4), seed=3)
# At this dose bad pixels that count as 0 cost more than the noise.
ELECTRONS = 1e7


def with_a_cross(made: Counts) -> Counts:
    """The gap between four chips, three pixels wide, through the direct beam."""
    good = np.ones(MODEL.probe.shape, bool)
    middle = slice(MODEL.px // 2 - 1, MODEL.px // 2 + 2)
    good[middle] = good[:, middle] = False
    return replace(made, counts=made.counts * good.astype(made.counts.dtype), good=good)


def error(method: str, counts: Counts) -> float:
    """Root mean square of exy and theta, which the fixed background of the model leaves alone."""
    answer = base.load(method).map_strain(counts, default_settings(method)(), "cpu")
    return float(np.sqrt((errors(answer.F, F)[..., 2:] ** 2).mean()))


@pytest.mark.parametrize("method", ["com", "template", "cepstral"])
def test_a_masked_cross_costs_little(method: str) -> None:
    made = MODEL.counts(F, ELECTRONS, 0.5, seed=1)
    masked = with_a_cross(made)
    clean = error(method, made)
    assert error(method, masked) < 1.15 * clean
    taken_for_counts = replace(masked, good=np.ones_like(masked.good))
    assert not error(method, taken_for_counts) <= 2 * clean  # NaN where there is no answer


def test_what_a_bad_pixel_holds_changes_nothing() -> None:
    masked = with_a_cross(MODEL.counts(F, 1e5, 0.5, seed=1))
    zero = torch.from_numpy(masked.counts.reshape(-1, 128, 128).astype(np.float32))
    other = zero.masked_fill(torch.from_numpy(~masked.good), 77)
    filled = filler(masked.good, "cpu")
    assert torch.equal(filled(zero), filled(other))


def test_patterns_without_bad_pixels_are_not_copied() -> None:
    patterns = torch.ones(2, 5, 5)
    assert filler(np.ones((5, 5), bool), "cpu")(patterns) is patterns


# A program that knows nothing of masks, and keeps what it was given.
KEEP = """
import shutil, sys, h5py, numpy as np
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
shutil.copy(given["--counts"], {kept!r})
with h5py.File(given["--counts"]) as file:
    scan = file["counts"].shape[:2]
with h5py.File(given["--map"], "w") as file:
    file["F"] = np.broadcast_to(np.eye(2), (*scan, 2, 2))
"""


def test_a_program_from_outside_gets_filled_pixels_and_the_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MODEL.counts(F, 1e6, seed=1)
    masked = with_a_cross(made)
    (tmp_path / "keep.py").write_text(KEEP.format(kept=str(tmp_path / "kept.h5")))
    write_counts(
        tmp_path / "counts.h5", masked.counts, made.counts.shape, made.calibration, made.probe
    )
    entry = Method(command=f"python {tmp_path / 'keep.py'}")
    external.run("keep", entry, tmp_path / "counts.h5", tmp_path / "map.h5")
    bad = int((~masked.good).sum())
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{bad} dead" in said
    found = json.loads(read_map(tmp_path / "map.h5").attributes["found"])
    assert found == {"bad_pixels": {"dead": bad}}
    with h5py.File(tmp_path / "kept.h5") as kept:
        np.testing.assert_array_equal(kept["mask"][...] == 0, masked.good)
        counts = kept["counts"][...]
    np.testing.assert_array_equal(counts[..., masked.good], made.counts[..., masked.good])
    filled = counts[..., ~masked.good].mean(dtype=float)
    assert filled == pytest.approx(made.counts[..., ~masked.good].mean(dtype=float), rel=0.2)
