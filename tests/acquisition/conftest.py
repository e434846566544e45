"""`ccstae import` as a function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ccstae import cli


@pytest.fixture
def run_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `ccstae import` with these words: exit code, standard output and error."""

    def of(*words: object) -> tuple[int, str, str]:
        out = tmp_path / "out" / "scan.h5"
        monkeypatch.setattr(sys, "argv", ["ccstae", "import", *map(str, words), "--out", str(out)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        code = int(end.value.code or 0)
        left = [path.name for path in out.parent.glob("*")] if out.parent.exists() else []
        assert left == (["scan.h5"] if code == 0 else [])
        return code, said.out, said.err

    return of
