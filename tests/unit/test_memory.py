"""A GPU that runs out of memory: smaller batches, then the CPU, said aloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae.methods import base, run, windows
from ccstae.settings.method import ZeroSettings

COUNTS = Model().counts(random_deformations((2, 3)), 1e5)


@pytest.mark.parametrize(
    ("room", "device", "said"),
    [
        (128, "cuda", []),
        (32, "cuda", ["batches smaller by 4"]),
        (8, "cuda", ["batches smaller by 4", "batches smaller by 16"]),
        (1, "cpu", ["batches smaller by 4", "batches smaller by 16", "on the CPU"]),
    ],
)
def test_a_gpu_out_of_memory(room: int, device: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def map_strain(counts: Any, settings: Any, device: str) -> base.Answer:
        if device == "cuda" and windows.batch(128) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return base.Answer(F=np.full((2, 3, 2, 2), float(windows.batch(128))))

    answer, used = run._within_memory("made", map_strain, COUNTS, ZeroSettings(), "cuda")
    lines = capsys.readouterr().err.splitlines()
    assert used == device
    assert answer.F[0, 0, 0, 0] == (room if device == "cuda" else 128)
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert line.startswith("method made: the GPU is out of memory; again ")
        assert line.endswith(part)
    assert windows.batch(128) == 128


def test_smaller_batches_give_the_same_patterns() -> None:
    flat = COUNTS.counts.reshape(-1, *COUNTS.counts.shape[2:])
    whole = torch.cat([patterns for _, patterns in windows.chunks(flat, "cpu")])
    with windows.smaller_batches(64):
        sizes, parts = zip(*((where.stop - where.start, patterns) for where, patterns in windows.chunks(flat, "cpu")), strict=True)
    assert max(sizes) < len(flat)
    assert torch.equal(torch.cat(parts), whole)
