"""A GPU that runs out of memory: smaller batches, then the CPU, said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from exact import SMALL, WARM, made
from synthetic import Model, random_deformations

from ccstae.config.run import Config
from ccstae.machine import device
from ccstae.methods.shared import windows
from ccstae.simulation import simulate

COUNTS = Model().counts(random_deformations((2, 3)), 1e5)


@pytest.mark.parametrize(
    ("room", "used", "said"),
    [
        (128, "cuda", []),
        (32, "cuda", ["batches smaller by 4"]),
        (8, "cuda", ["batches smaller by 4", "batches smaller by 16"]),
        (1, "cpu", ["batches smaller by 4", "batches smaller by 16", "on the CPU"]),
    ],
)
@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_gpu_out_of_memory(
    room: int,
    used: str,
    said: list[str],
    full: RuntimeError,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def task(on: str) -> int:
        if on == "cuda" and device.batch(128) > room:
            raise full
        return device.batch(128)

    size, on = device.within_memory("made", task, "cuda")
    lines = capsys.readouterr().err.splitlines()
    assert on == used
    assert size == (room if on == "cuda" else 128)
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert line.startswith("made: the GPU is out of memory; again ")
        assert line.endswith(part)
    assert device.batch(128) == 128


def test_another_error_is_no_full_memory() -> None:
    def task(on: str) -> int:
        raise RuntimeError("Expected all tensors to be on the same device")

    with pytest.raises(RuntimeError, match="same device"):
        device.within_memory("made", task, "cuda")


def test_batches_follow_the_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for memory in (8 * 10**9, 24 * 10**9, 80 * 10**9):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda memory=memory: (0, memory))
        sizes.append(device.at_a_time(128, 4 * 2**20, "cuda"))
        assert device.at_a_time(128, 4 * 2**20, "cpu") == 128
        assert sizes[-1] * 4 * 2**20 <= memory / 2
    assert sizes == [953, 2861, 8192]
    with device.smaller_batches(16):
        assert device.at_a_time(128, 4 * 2**20, "cuda") == 512


def test_a_scene_is_drawn_on_the_cpu_from_where_the_gpu_is_full_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both renderers are those of the CPU; the one asked for as the GPU's has room for a vacuum
    probe and two tiles.
    """
    config, _ = made(
        {
            "kind": "heterostructure",
            "scan": {"shape": [2, 2], "step_A": 400},
            "reference_A": [-300, -300, 0, 300],
        },
        microscope=SMALL,
        materials=WARM,
    )
    cpu, tiles = simulate.renderer, []

    def renderer(config: Config, scene: Any, on: str = "cpu") -> Any:
        drawer = cpu(config, scene)
        drawer.tile_A = 0.0  # one position a tile
        inner = drawer.tile

        def tile(*given: Any) -> Any:
            tiles.append(on)
            if on == "cuda" and tiles.count("cuda") > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inner(*given)

        drawer.tile = tile
        return drawer

    simulate.write(config, "made", tmp_path / "cpu.h5", tmp_path / "cpu.exact.h5")
    monkeypatch.setattr(simulate, "renderer", renderer)
    monkeypatch.setattr(device, "resolve", lambda given: "cuda")
    simulate.write(config, "made", tmp_path / "gpu.h5", tmp_path / "gpu.exact.h5")
    assert tiles == ["cuda"] * 5 + ["cpu"] * 2
    assert [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.endswith("out of memory; again on the CPU")
    ]
    with h5py.File(tmp_path / "cpu.h5") as expected, h5py.File(tmp_path / "gpu.h5") as found:
        assert np.abs(found["patterns"][...] - expected["patterns"][...]).max() < 1e-7


def test_smaller_batches_give_the_same_patterns() -> None:
    flat = COUNTS.counts.reshape(-1, *COUNTS.counts.shape[2:])
    whole = torch.cat([patterns for _, patterns in windows.chunks(flat, "cpu")])
    with device.smaller_batches(64):
        sizes, parts = zip(
            *(
                (where.stop - where.start, patterns)
                for where, patterns in windows.chunks(flat, "cpu")
            ),
            strict=True,
        )
    assert max(sizes) < len(flat)
    assert torch.equal(torch.cat(parts), whole)
