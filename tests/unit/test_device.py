"""Which device a setting means, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ccstae import cli
from ccstae.device import resolve
from ccstae.errors import InputError


@pytest.mark.parametrize("there", [False, True])
def test_auto_takes_the_gpu_where_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
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
    out = ["--out", str(tmp_path / "a.h5"), "--optics", str(tmp_path / "b.h5")]
    monkeypatch.setattr(sys, "argv", ["ccstae", "simulate", config, "heterostructure", "--device", "gpu", *out])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: device: gpu was asked for")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
