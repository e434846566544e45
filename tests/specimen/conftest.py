"""Scenes name files from the project's folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
