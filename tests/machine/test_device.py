"""Which device a setting means, and what is said where there is none."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ccstae import cli
from ccstae.errors import InputError
from ccstae.machine.device import resolve, spread_over


@pytest.mark.parametrize("there", [False, True])
def test_auto_takes_the_gpu_where_there_is_one(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve("cpu") == "cpu"
    assert resolve("auto") == ("cuda" if there else "cpu")


def test_a_missing_gpu_asked_for_by_name_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"device: gpu.*expected a CUDA GPU"):
        resolve("gpu")


def test_a_simulation_on_a_missing_gpu_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = str(Path(__file__).parents[2] / "config" / "default.yaml")
    out = ["--out", str(tmp_path / "a.h5"), "--exact", str(tmp_path / "b.h5")]
    monkeypatch.setattr(
        sys, "argv", ["ccstae", "simulate", config, "heterostructure", "--device", "gpu", *out]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: device: gpu was asked for")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_of_one_batch_serves_the_next() -> None:
    """Ten times 4 MiB: each of its 1,024 pages is new to the system every time, or but once."""
    program = (
        "import resource; import numpy as np; from ccstae.machine.device import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): np.full(2**22, 1, np.int8), np.full(2**22, 2, np.int8)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "keep_freed_memory(); faults(); print(faults())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200


@pytest.mark.parametrize("width", [32, 64, 81, 100, 128, 256, 512])
@pytest.mark.parametrize("most", [64, 128, 512])
def test_some_patterns_are_of_all_rows_and_columns_of_a_scan(width: int, most: int) -> None:
    """64 of 64 x 64 positions, one in so many, were those of the first column."""
    chosen = spread_over(width**2, most)
    assert 0.7 * min(most, width**2) < len(chosen) <= most
    for part in (chosen // width, chosen % width):
        in_eighths = np.histogram(part, bins=8, range=(0, width))[0]
        assert in_eighths.min() >= 0.5 * len(chosen) / 8
