"""Which device a setting means, and what is said where there is none."""

from __future__ import annotations

import pytest
import torch

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
