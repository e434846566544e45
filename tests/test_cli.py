"""The command line: what it prints, and how it ends on bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ccstae import cli, geometry
from ccstae.config.run import dump, load
from ccstae.io.hdf5 import opened
from ccstae.io.maps import Map, write_map

ROOT = Path(__file__).parents[1]
DEFAULT = str(ROOT / "config" / "default.yaml")


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["ccstae", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


BAD = {
    "no such config": (
        ["config", "check", "nowhere.yaml"],
        ["nowhere.yaml", "expected a YAML config"],
    ),
    "a folder": (["config", "check", "."], [".", "directory"]),
    "an unknown scene": (
        ["simulate", DEFAULT, "heterostructur", "--out", "a.h5", "--exact", "b.h5"],
        ["'heterostructure'?"],
    ),
    "an unknown level": (
        ["noise", DEFAULT, "heterostructure", "clear", "1", "--scene", "a.h5", "--out", "b.h5"],
        ["'clean'?"],
    ),
    "an unknown method": (
        ["map", DEFAULT, "templat", "--counts", "a.h5", "--out", "b.h5"],
        ["'template'?"],
    ),
    "no such counts": (
        ["map", DEFAULT, "zero", "--counts", "nowhere.h5", "--out", "b.h5"],
        ["nowhere.h5", "expected an HDF5 file"],
    ),
    "no such scan": (["map", "nowhere.h5", "--out", "b.h5"], ["nowhere.h5", "no such file"]),
    "a config without a method": (
        ["map", DEFAULT, "--out", "b.h5"],
        ["no scan file", "expected METHOD and --counts"],
    ),
    "a method of a scan by its place": (
        ["map", "scan.h5", "com", "--out", "b.h5"],
        ["scan.h5 is a scan", "--method names the method"],
    ),
    "settings of a scan's method that are no JSON": (
        ["map", "scan.h5", "--out", "b.h5", "--set", "{a"],
        ["--set", "not valid JSON"],
    ),
    "a format that is not written": (
        ["strain", "nowhere.h5", "--out", "b.png"],
        ["b.png", "one of .h5, .nc, .tif, .csv"],
    ),
    "no such scores": (
        ["tables", DEFAULT, "--metrics", "nowhere.csv", "--out", "tables"],
        ["nowhere.csv"],
    ),
    "a map that is none": (["strain", "nowhere.h5", "--out", "b.h5"], ["nowhere.h5"]),
    "a method that is none": (["check-method", "templat"], ["'templat' is neither"]),
    "settings of a method that are no JSON": (
        ["check-method", "zero", "--settings", "{a: 1}"],
        ["--settings", "not valid JSON"],
    ),
    "settings that the method does not know": (
        ["check-method", "zero", "--settings", '{"silence": true}'],
        ["zero: settings.silence", "did you mean 'silent'?"],
    ),
    "a program without a name": (["check-method", ""], ["expected a program and its arguments"]),
    "no time for a program": (
        ["check-method", "true", "--time-limit-s", "0"],
        ["time_limit_s", "greater than 0"],
    ),
    "a name that no method can have": (["new-method", "a b"], ["'a b' cannot name a method"]),
    "no map": (["check-map", "nowhere.h5"], ["nowhere.h5", "expected an HDF5 file"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_line_and_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    assert run(*words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(part in said for part in expected), said
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_counts_file_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = tmp_path / "counts.h5"
    counts.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    out = tmp_path / "map.h5"
    assert (
        run(
            "map",
            DEFAULT,
            "zero",
            "--counts",
            str(counts),
            "--out",
            str(out),
            monkeypatch=monkeypatch,
        )
        == 2
    )
    assert str(counts) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["counts.h5"]


def test_a_system_that_refuses_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert (
        run(
            "config",
            "resolve",
            DEFAULT,
            "--out",
            str(blocked / "config.yaml"),
            monkeypatch=monkeypatch,
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(blocked) in said
    assert "Not a directory" in said or "File exists" in said


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the subcommand `methods` end with an exception that nobody foresaw."""

    def methods() -> str:
        raise error

    monkeypatch.setattr("ccstae.config.describe.methods", methods)


@pytest.mark.parametrize("traced", [False, True])
def test_a_defect_is_told_in_one_line_and_its_traceback_where_it_is_asked_for(
    traced: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raises(RuntimeError("no such\ndimension"), monkeypatch)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # `--log` replaces it
    if traced:
        monkeypatch.setenv("CCSTAE_TRACEBACK", "1")
    log = tmp_path / "log.txt"
    assert run("--log", str(log), "methods", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert last.startswith("error: RuntimeError at ccstae/commands/methods.py:")
    assert "no such dimension; this is a defect of ccstae" in last
    assert ("Traceback" in said) == traced
    assert traced or said.count("\n") == 1
    assert "Traceback" in log.read_text()
    assert last in log.read_text()


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 2, "error: out of memory: "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: out of memory: "),
    ],
)
def test_an_interrupt_and_a_lack_of_memory_are_told_in_one_line(
    error: BaseException,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raises(error, monkeypatch)
    assert run("methods", monkeypatch=monkeypatch) == code
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert said.count("\n") == 1


def test_a_resolved_config_says_everything_and_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", "resolve", DEFAULT, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(text)
    assert dump(load(resolved)) == text
    assert yaml.safe_load(text)["methods"]["template"]["settings"]["subpixel"] == "dft"


SMALL = """
name: small
scenes:
  narrow:
    kind: heterostructure
    materials: [WS2, WSe2]
    scan: {shape: [8, 8], step_A: 140}
  flat:
    kind: heterostructure
    materials: [WS2, WSe2]
    scan: {shape: [8, 8], step_A: 140}
    reference_A: [-520, -360, -200, -340]
  wide: {kind: uniform, materials: [WS2], scan: {shape: [4, 4]}}
noise: {clean: {electrons: .inf}}
methods: {zero: }
"""


def test_a_check_tells_of_a_reference_that_is_one_line_of_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    assert run("config", "check", str(path), monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: good: 3 scenes, 1 noise levels, 1 methods, 6 maps\n"
    assert said.err.splitlines() == [
        "warning: scene narrow: the reference region holds 7 positions in one column",
        "warning: scene flat: the reference region holds 3 positions in one row",
    ]
    assert run("config", "check", DEFAULT, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().err == ""


def test_the_schema_names_every_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", "schema", monkeypatch=monkeypatch) == 0
    assert (
        "semiangle_mrad" in json.loads(capsys.readouterr().out)["$defs"]["Microscope"]["properties"]
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("methods", ["zero:", "template:", "upsample (default"]),
        (
            "scenes",
            [
                "heterostructure:",
                "dislocations:",
                "poisson_ratio (default 0.22)",
                "polycrystal:",
                "labelled:",
                "sha256",
            ],
        ),
    ],
)
def test_lists_for_people(
    command: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in expected)


def test_looking_around_loads_no_heavy_module() -> None:
    """`--help`, `config check` and the workflow's own planning stay fast."""
    program = (
        "import sys; sys.argv = ['ccstae', 'config', 'check', sys.argv[1]]\n"
        "import ccstae.cli, ccstae.pipeline.stages\n"
        "try: ccstae.cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'abtem', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, DEFAULT],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_threads_are_set_before_anything_counts_them() -> None:
    program = "from ccstae import cli; cli.options(threads=1); "
    program += "import torch; print(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "1"


def test_check_method_says_one_line_a_check_and_ends_with_1_where_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check-method", "zero", monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines[:-1]] == ["pass"] * 3 + ["FAIL"] * 5
    assert lines[4] == "FAIL  vacuum: 0 of 12 without an answer; expected 12: there is no lattice"
    assert lines[-1] == "zero: 3 of 8 checks passed"
    assert run("check-method", "com", "--tolerance", "1e-5", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.endswith("com: 8 of 8 checks passed\n")


def test_strain_writes_displacements_and_a_figure(tmp_path: Path, monkeypatch) -> None:
    F = np.tile(geometry.deformation(0.01, 0, 0, 0), (5, 6, 1, 1))
    write_map(tmp_path / "map.h5", Map(F, {"step_A": 20.0}))
    out = tmp_path / "behind.h5"
    assert run("strain", str(tmp_path / "map.h5"), "--out", str(out), monkeypatch=monkeypatch) == 0
    assert out.with_suffix(".png").stat().st_size > 0
    with opened(out) as file:
        step = np.diff(file["u_A"][..., 0], axis=1)
    np.testing.assert_allclose(step, 20 * (1 - 1 / 1.01), atol=1e-6)


def test_strain_asks_for_the_step_of_a_map_that_does_not_say_it(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    write_map(tmp_path / "map.h5", Map(np.tile(np.eye(2), (3, 3, 1, 1)), {}))
    words = ["strain", str(tmp_path / "map.h5"), "--out", str(tmp_path / "b.h5")]
    assert run(*words, monkeypatch=monkeypatch) == 2
    assert "--step-A" in capsys.readouterr().err
    assert run(*words, "--step-A", "20", monkeypatch=monkeypatch) == 0
