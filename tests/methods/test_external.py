"""Programs from outside as methods: what they are given and must leave, and how they may fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import OUTSIDE, configured, python

from ccstae.errors import InputError
from ccstae.io.maps import read_map
from ccstae.methods import external, run


def test_a_program_from_outside_gets_a_checked_map(tmp_path: Path, counts_path: Path) -> None:
    command = python(OUTSIDE, tmp_path)
    run.write(
        configured({"mine": {"command": command, "settings": {"scale": 1.25}}}),
        "mine",
        counts_path,
        tmp_path / "maps" / "mine.h5",
    )
    answer = read_map(tmp_path / "maps" / "mine.h5", (2, 3))
    np.testing.assert_array_equal(answer.F, np.broadcast_to(1.25 * np.eye(2), (2, 3, 2, 2)))
    assert answer.attributes["method"] == "mine"
    assert answer.attributes["command"] == command
    assert json.loads(answer.attributes["settings"]) == {"scale": 1.25}
    assert answer.attributes["seconds"] > 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "print('one'); raise SystemExit('the lattice went missing')",
            "exit code 1; it last printed: one | the lattice went missing",
        ),
        ("print('nothing to do')", "wrote no map file.*nothing to do"),
        (
            "import time; print('still here', flush=True); time.sleep(60)",
            "longer than its time_limit_s of 2 s.*still here",
        ),
        (
            OUTSIDE.replace("(*scan, 2, 2)", "(*scan[::-1], 2, 2)"),
            r"/F has shape \(3, 2, 2, 2\); expected \(2, 3, 2, 2\)",
        ),
        (OUTSIDE.replace('["F"]', '["f"]'), "no dataset /F"),
        (OUTSIDE.replace("1.0)", "np.inf)"), "infinities"),
        ("import sys; open(sys.argv[4], 'w').write('F = 1')", "not a readable HDF5 file"),
    ],
    ids=["fails", "no map", "too slow", "wrong shape", "wrong name", "infinite", "no HDF5"],
)
def test_a_program_that_fails_is_quoted_and_leaves_nothing(
    code: str, said: str, tmp_path: Path, counts_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    entry = {"command": python(code.replace(" | ", "\n"), tmp_path), "time_limit_s": 2}
    with pytest.raises(
        InputError, match="methods.mine: .*" + said.replace(" | ", r" \| ")
    ) as caught:
        run.write(configured({"mine": entry}), "mine", counts_path, tmp_path / "maps" / "mine.h5")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "maps").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program --fast", "'no-such-program' cannot be started"),
        ("'open quote", "cannot be split"),
        (" ", "expected a program"),
    ],
)
def test_a_command_that_cannot_start_says_so(
    command: str, said: str, tmp_path: Path, counts_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        run.write(
            configured({"mine": {"command": command}}), "mine", counts_path, tmp_path / "map.h5"
        )


def test_a_command_never_meets_a_shell(tmp_path: Path, counts_path: Path) -> None:
    touched = tmp_path / "touched"
    entry = {
        "command": f"{sys.executable} -c 'pass' $(touch {touched}) ; touch {touched}",
        "settings": {"a": f"$(touch {touched})"},
    }
    with pytest.raises(InputError, match="wrote no map file"):
        run.write(configured({"mine": entry}), "mine", counts_path, tmp_path / "map.h5")
    assert not touched.exists()


TOLD = OUTSIDE + '    file["own_strain"] = np.zeros((*scan, 4))\n    file.attrs["seconds"] = 1e-3\n'


def test_a_program_may_tell_its_mapping_time_and_its_own_strain(
    tmp_path: Path, counts_path: Path
) -> None:
    run.write(
        configured({"mine": {"command": python(TOLD, tmp_path)}}),
        "mine",
        counts_path,
        tmp_path / "map.h5",
    )
    answer = read_map(tmp_path / "map.h5", (2, 3))
    assert answer.attributes["seconds"] == 1e-3
    np.testing.assert_array_equal(answer.own_strain, np.zeros((2, 3, 4)))
    entry = {"command": python(TOLD.replace("1e-3", "1e9"), tmp_path)}
    with pytest.raises(
        InputError, match=r"attribute seconds is 1000000000\.0; expected those of the mapping"
    ):
        run.write(configured({"mine": entry}), "mine", counts_path, tmp_path / "map.h5")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "environment absent missing: no .environments/absent.python"),
        (
            "error: it could not be made from envs/absent.lock: ERROR: No matching distribution",
            "No matching distribution",
        ),
        ("/nowhere/bin/python", "no /nowhere/bin/python"),
        (sys.executable, "failed with exit code 1; it last printed: the lattice went missing"),
    ],
    ids=["never made", "could not be made", "gone", "broken"],
)
def test_a_method_with_an_environment_of_its_own_may_fail(
    state: str | None,
    said: str,
    tmp_path: Path,
    counts_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".environments").mkdir()
    (tmp_path / "program.py").write_text("raise SystemExit('the lattice went missing')")
    if state is not None:
        external.interpreter("absent").write_text(state + "\n")
    run.write(
        configured({"peer": {"command": "python program.py", "environment": "absent"}}),
        "peer",
        counts_path,
        tmp_path / "map.h5",
    )
    answer = read_map(tmp_path / "map.h5", (2, 3))
    assert np.isnan(answer.F).all()
    assert said in answer.attributes["error"]
    assert answer.attributes["seconds"] == 0
    assert "the run goes on without it" in capsys.readouterr().err


def test_a_method_with_an_environment_runs_in_its_python(
    tmp_path: Path, counts_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".environments").mkdir()
    external.interpreter("own").write_text(sys.executable + "\n")
    (tmp_path / "program.py").write_text(OUTSIDE)
    run.write(
        configured({"peer": {"command": "python program.py", "environment": "own"}}),
        "peer",
        counts_path,
        tmp_path / "map.h5",
    )
    assert "error" not in read_map(tmp_path / "map.h5", (2, 3)).attributes


def test_an_environment_that_cannot_be_made_says_why_and_fails_nothing(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "peers" / "environment.py"
    (tmp_path / "bad.lock").write_text("not a requirement ==\n")
    words = [sys.executable, str(script), str(tmp_path / "bad.lock"), str(tmp_path / "bad.python")]
    assert subprocess.run(words, capture_output=True, timeout=120).returncode == 0
    assert (tmp_path / "bad.python").read_text().startswith("error: it could not be made from")
    (tmp_path / "good.lock").write_text(
        f"numpy=={np.__version__}\n"
    )  # this Python has it already, as one that conda made would
    words[2:] = [str(tmp_path / "good.lock"), str(tmp_path / "good.python")]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert (tmp_path / "good.python").read_text().strip() == sys.executable
