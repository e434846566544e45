"""A config with nothing wrong in it, to spoil one thing at a time; and the command line to give it
to.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from ccstae import cli

ABSENT = object()  # in place of a value: the entry is taken out
GOOD: dict[str, Any] = {
    "name": "mine",
    "device": "cpu",
    "microscope": {
        "energy_keV": 80,
        "semiangle_mrad": 3,
        "pixel_size_inv_A": 0.013,
        "detector_px": 128,
    },
    "materials": {
        "WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153, "thickness_A": 3.14},
        "WSe2": {"prototype": "mx2-2h", "species": ["W", "Se"], "a_A": 3.282, "thickness_A": 3.34},
    },
    "scenes": {
        "pair": {
            "kind": "heterostructure",
            "materials": ["WS2", "WSe2"],
            "scan": {"shape": [8, 8], "step_A": 140},
        }
    },
    "noise": {
        "clean": {"electrons": float("inf")},
        "dose": {"background": [0, 0.25], "electrons": [1e5]},
    },
    "seeds": {"test": [1, 2], "tune": [101]},
    "methods": {"zero": None, "template": {"settings": {"upsample": 8}}},
}


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["ccstae", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def refused(
    words: list[str],
    expected: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command ends with code 2 and one line that says what is expected of it, and leaves no new
    file.
    """
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run(*words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert [part for part in expected if part not in said.err] == [], said.err
    assert said.out == ""
    assert sorted(folder.rglob("*")) == before


def config_refused(
    content: str | bytes,
    expected: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`config check` refuses a config file of this content, and names the file."""
    text = content.encode() if isinstance(content, str) else content
    (folder / "config.yaml").write_bytes(text)
    words = ["config", "check", "config.yaml"]
    refused(words, ["config.yaml", *expected], folder, monkeypatch, capsys)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good config with one entry set, or taken out."""
    data = copy.deepcopy(GOOD)
    *outer, last = path.split(".")
    place = data
    for key in outer:
        place = place.setdefault(key, {})
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return data
