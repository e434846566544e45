"""Progress in a log: few lines, the right numbers, nothing lost."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ccstae.machine.progress import Copy, copy_stderr, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_unchanged_and_the_log_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(1000), label="tiles")) == list(range(1000))
    said = capsys.readouterr().err
    assert said.startswith("tiles: 1000/1000, ")
    assert said.count("\n") == 1


def test_lines_come_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress(iter("abc"), total=3, label="rows", interval_s=0))
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "rows: 1/3",
        "rows: 2/3",
        "rows: 3/3",
    ]


def test_a_log_beside_a_terminal_gets_lines_and_no_bar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    path = tmp_path / "logs" / "job.log"
    copy_stderr(path)
    assert isinstance(sys.stderr, Copy)
    print("a message", file=sys.stderr)
    assert list(progress("xyz", label="steps")) == ["x", "y", "z"]
    sys.stderr.log.close()
    log = path.read_text()
    assert log.startswith("a message\nsteps: 3/3, ")
    assert "\x1b" not in log
    assert "a message" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "\x1b" in terminal.getvalue()
