"""Running methods: the registry, the contract that all keep, the map file they end in, the site
finder they share, and programs from outside.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import contract
import h5py
import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.config.methods import modules, settings
from ccstae.config.run import Config, dump, parse
from ccstae.errors import InputError
from ccstae.evaluation import method_contract, new_method
from ccstae.evaluation.method_contract import (
    FORM,
    STRAIN,
    Tolerance,
    failures,
    package_method,
    program,
)
from ccstae.io.calibration import disk_radius_px, write_calibration
from ccstae.io.counts import Counts
from ccstae.io.maps import read_map
from ccstae.methods import base, external, run
from ccstae.methods.shared import lattice_sites, sites

MODEL = Model()
# One worker runs these: what a method learns in one, the others use.
LEARNS = pytest.mark.xdist_group("contract")
OUTSIDE = """
import argparse, json, h5py, numpy as np
parser = argparse.ArgumentParser()
for name in ("--counts", "--map", "--settings"):
    parser.add_argument(name)
given = parser.parse_args()
with h5py.File(given.counts) as file:
    scan = file["counts"].shape[:2]
with h5py.File(given.map, "w") as file:
    scale = json.loads(given.settings).get("scale", 1.0)
    file["F"] = np.broadcast_to(np.eye(2) * scale, (*scan, 2, 2))
"""


@pytest.fixture(scope="module")
def counts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = MODEL.counts(random_deformations((2, 3)), 1e5)
    path = tmp_path_factory.mktemp("counts") / "w0.00_n100000.1.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = made.counts
        write_calibration(file, made.calibration, made.probe)
    return path


def configured(methods: dict[str, Any]) -> Config:
    return parse(
        {
            "name": "made",
            "device": "cpu",
            "materials": {
                "WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153},
                "WSe2": {"prototype": "mx2-2h", "species": ["W", "Se"], "a_A": 3.282},
            },
            "scenes": {"made": {"kind": "heterostructure", "materials": ["WS2", "WSe2"]}},
            "noise": {"dose": {"electrons": [1e5]}},
            "methods": methods,
        }
    )


def python(code: str, folder: Path) -> str:
    script = folder / "a program.py"
    script.write_text(code)
    return shlex.join([sys.executable, str(script)])


def test_an_unknown_method_is_refused_with_the_nearest_name(
    tmp_path: Path, counts_path: Path
) -> None:
    with pytest.raises(InputError, match="'temlate'; did you mean 'template'"):
        run.write(configured({"template": {}}), "temlate", counts_path, tmp_path / "map.h5")
    with pytest.raises(InputError, match="did you mean 'zero'"):
        base.load("zer")


@pytest.mark.parametrize("method", ["zero", "com", "template"])
def test_a_map_says_how_it_was_made(method: str, tmp_path: Path, counts_path: Path) -> None:
    run.write(configured({"mine": {"method": method}}), "mine", counts_path, tmp_path / "map.h5")
    answer = read_map(tmp_path / "map.h5", (2, 3))
    assert np.isfinite(answer.F).all()
    assert answer.attributes["method"] == "mine"
    assert answer.attributes["device"] == "cpu"
    assert answer.attributes["threads"] == torch.get_num_threads()
    assert 0 < answer.attributes["seconds"] < 60
    assert 2**24 < answer.attributes["peak_memory_bytes"] < 2**35
    assert json.loads(answer.attributes["versions"])["torch"] == torch.__version__
    assert json.loads(answer.attributes["settings"]) == settings(method)().model_dump(mode="json")


@LEARNS
@pytest.mark.parametrize("method", sorted(modules()))
def test_every_method_keeps_the_contract(method: str) -> None:
    tolerance = method_contract.TOLERANCES.get(method, method_contract.DEFAULT_TOLERANCE)
    assert failures(contract.mapper(method), tolerance, contract.only(method)) == []


@LEARNS
def test_learning_anew_gives_the_same_bytes() -> None:
    """The contract above shares what `ccstae` learned from the clean scan first."""
    _, scan = method_contract.clean_scan()
    shared, _ = contract.mapper("ccstae")(scan)
    anew, _ = package_method("ccstae")(scan)
    for field in ("F", "covariance", "label", "centre_px", "dictionary"):
        assert getattr(shared, field).tobytes() == getattr(anew, field).tobytes(), field


# `com` as a program from outside.
COM = """
import argparse
from ccstae.io.counts import read_counts
from ccstae.io.maps import Map, write_map
from ccstae.methods.com import method, settings
parser = argparse.ArgumentParser()
for name in ("--counts", "--map", "--settings"):
    parser.add_argument(name)
given = parser.parse_args()
counts = read_counts(given.counts)
chosen = settings.ComSettings.model_validate_json(given.settings)
write_map(given.map, Map(method.map_strain(counts, chosen, "cpu").F, {}))
"""


def test_a_program_from_outside_can_keep_the_contract(tmp_path: Path) -> None:
    map_scan = program(python(COM, tmp_path), {"window_radii": 1.4})
    checks = ("inputs left alone", "clean patterns", "vacuum", "any orientation")
    assert failures(map_scan, method_contract.TOLERANCES["com"], checks) == []


# How another processor computes: no wide vectors, other sums. Counts do not change; methods stay
# within 1e-4, far below the bound.
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL "
    "AVX2 FMA3",
}


@pytest.mark.parametrize("method", ["com", "template", "ccstae"])
def test_another_processor_gives_nearly_the_same_map(
    method: str, tmp_path: Path, counts_path: Path
) -> None:
    made = configured({method: {}})
    run.write(made, method, counts_path, tmp_path / "here.h5")
    (tmp_path / "config.yaml").write_text(dump(made))
    words = [
        "ccstae",
        "map",
        "config.yaml",
        method,
        "--counts",
        str(counts_path),
        "--out",
        "there.h5",
    ]
    subprocess.run(words, cwd=tmp_path, env=os.environ | PLAIN, check=True, capture_output=True)
    here, there = (read_map(tmp_path / f"{name}.h5").F for name in ("here", "there"))
    assert np.abs(here - there).max() < 1e-4


def test_another_processor_draws_the_same_counts() -> None:
    drawn = (
        "import hashlib, numpy as np; from ccstae.simulation import noise; from ccstae.config.run "
        "import Level;"
        " y, x = np.mgrid[-32:32, -32:32];"
        "pattern = np.exp(-np.hypot(x, y) / 5); level = Level(background=0.25, electrons=1e5);"
        "print(hashlib.sha256(np.stack([noise.pattern_counts(pattern, level, 1, 'a', i) for i in "
        "range(20)])).hexdigest())"
    )
    here, there = (
        subprocess.run(
            [sys.executable, "-c", drawn],
            env=os.environ | extra,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for extra in ({}, PLAIN)
    )
    assert here == there


def test_zero_is_no_strain_everywhere(tmp_path: Path, counts_path: Path) -> None:
    run.write(configured({"zero": {}}), "zero", counts_path, tmp_path / "map.h5")
    np.testing.assert_array_equal(
        read_map(tmp_path / "map.h5").F, np.broadcast_to(np.eye(2), (2, 3, 2, 2))
    )


@pytest.mark.parametrize(
    ("F", "said"),
    [(np.zeros((3, 2, 2, 2)), "shape"), (np.full((2, 3, 2, 2), np.inf), "infinities")],
)
def test_an_answer_outside_the_contract_is_refused(
    F: np.ndarray, said: str, tmp_path: Path, counts_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SimpleNamespace(map_strain=lambda counts, settings, device: base.Answer(F))
    monkeypatch.setattr(base, "load", lambda name: method)
    with pytest.raises(InputError, match=said):
        run.write(configured({"zero": {}}), "zero", counts_path, tmp_path / "map.h5")
    assert list(tmp_path.iterdir()) == []


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


def test_the_site_finder_lands_well_inside_every_disk() -> None:
    model = Model(offset_px=(1.7, -2.3))
    F = geometry.deformation(0.02, 0.015, 0, np.linspace(-0.5, 0.5, 9).reshape(3, 3))
    counts = model.counts(F, 1e5)
    patterns = torch.from_numpy(counts.counts.reshape(9, 128, 128).astype(np.float32))
    finder = sites.SiteFinder.learn(counts, "cpu")
    found = finder.locate(patterns)
    assert found.has_lattice.all()
    np.testing.assert_allclose(found.centre, np.broadcast_to([65.7, 61.7], (9, 2)), atol=0.08)
    truth = geometry.inverse_transpose(F.reshape(9, 2, 2)) @ model.G0 / model.pixel_size_inv_A
    outermost = 2 * np.linalg.norm(found.G.numpy() - truth, axis=1).max()  # at {20-20}
    assert outermost < model.radius_px / 2


@pytest.mark.parametrize("background", [0.0, 0.5])
def test_a_scan_of_vacuum_alone_holds_no_lattice(background: float) -> None:
    F = np.broadcast_to(np.eye(2), (6, 6, 2, 2))
    counts = MODEL.counts(F, 1e5, background, vacuum=np.ones((6, 6), bool))
    finder = sites.SiteFinder.learn(counts, "cpu")
    found = finder.locate(torch.from_numpy(counts.counts.reshape(36, 128, 128).astype(np.float32)))
    assert found.has_lattice.float().mean() < 0.1


def test_disk_radius_and_rings_of_the_main_microscope() -> None:
    assert disk_radius_px(MODEL.calibration) == pytest.approx(5.53, abs=0.01)
    hk = lattice_sites.nodes(MODEL.calibration, (128, 128))
    ring = lattice_sites.rings(MODEL.calibration, hk)
    assert [int((ring == k).sum()) for k in range(4)] == [6, 6, 6, 12]


def test_the_example_of_the_documentation_is_a_method(tmp_path: Path) -> None:
    """It is exact on clean patterns; docs/peers.md says which checks it fails."""
    text = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 35
    checks = list(method_contract.check(program(python(code, tmp_path)), Tolerance(1e-4)))
    assert [check.name for check in checks if not check.passed] == ["vacuum", "any orientation"]
    for check in checks:
        assert f"{'pass' if check.passed else 'FAIL'}  {check.name}: " in text


class Spoiled:
    """What a method must not do, one at a time, on top of `com`."""

    def __init__(self, spoil: str) -> None:
        self.spoil, self.calls, self.com = spoil, 0, package_method("com")

    def __call__(self, counts: Counts) -> tuple[base.Answer, Counts]:
        answer, left = self.com(counts)
        self.calls += 1
        F, spoil = answer.F.copy(), self.spoil
        if spoil == "inputs left alone":
            left.counts[0, 0, 0, 0] += 1
        if spoil == "same bytes twice":
            F[0, 0, 0, 0] += 1e-9 * self.calls
        if spoil == "vacuum":
            F[np.isnan(F)] = 0.5
        if spoil == "any orientation" and len(F) == 8:
            F[-1, -1] = np.nan
        if spoil == "clean patterns":
            F[0, 0] *= 1.001
        if spoil == "shapes and kinds":
            base.check_answer(base.Answer(F[0]), F.shape[:2], "spoiled")
        return base.Answer(F), left


@pytest.mark.parametrize(
    ("spoil", "failed"),
    [
        ("inputs left alone", {"inputs left alone"}),
        ("same bytes twice", {"same bytes twice"}),
        ("vacuum", {"vacuum"}),
        ("any orientation", {"any orientation"}),
        (
            "clean patterns",
            {"clean patterns", "beam off the nominal centre", "detector not square"},
        ),
        ("shapes and kinds", {*FORM, *STRAIN}),
    ],
)
def test_the_contract_sees_what_a_method_must_not_do(spoil: str, failed: set[str]) -> None:
    checks = method_contract.check(Spoiled(spoil), method_contract.TOLERANCES["com"])
    assert {check.name for check in checks if not check.passed} == failed


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


def in_copy(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a copy of the project."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    return done


CLI = ("-c", "from ccstae.cli import main; main()")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the parts of the project that a method lies in, to write into."""
    root, folder = Path(__file__).parents[2], tmp_path / "project"
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "ccstae", folder / "ccstae", ignore=no_caches)
    (folder / "tests" / "methods").mkdir(parents=True)
    return folder


def test_a_new_method_is_listed_runs_from_a_config_and_passes_its_test(
    copied: Path, counts_path: Path
) -> None:
    made = in_copy(copied, *CLI, "new-method", "my_own")  # the file's name will do
    assert made.returncode == 0, made.stderr
    assert "methods: {my-own: }" in made.stdout
    assert made.stdout.count("\n") == 3
    assert "tests/methods/test_my_own.py" in made.stdout
    assert "\nmy-own: One line" in in_copy(copied, *CLI, "methods").stdout
    config = dump(configured({"zero": {}})).split("methods:")[0] + "methods: {my-own: }\n"
    (copied / "config.yaml").write_text(config)
    out = str(copied / "map.h5")
    words = ("map", "config.yaml", "my-own", "--counts", str(counts_path), "--out", out)
    mapped = in_copy(copied, *CLI, *words)
    assert mapped.returncode == 0, mapped.stderr
    assert (np.eye(2) == read_map(out, (2, 3)).F).all()
    test = copied / "tests" / "methods" / "test_my_own.py"
    passed = in_copy(copied, "-m", "pytest", "-q", str(test))
    assert passed.returncode == 0, passed.stdout
    again = in_copy(copied, *CLI, "new-method", "my-own")
    assert again.returncode == 2
    assert "'my-own' is taken: there is ccstae/methods/my_own.py" in again.stderr
    # The example of CONTRIBUTING.md in its place, with its test.
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    method, example = (part.split("```")[0] for part in text.split("```python\n")[1:3])
    (copied / "ccstae" / "methods" / "disks.py").write_text(method)
    (test.parent / "test_disks.py").write_text(example)
    passed = in_copy(copied, "-m", "pytest", "-q", str(test.parent / "test_disks.py"))
    assert passed.returncode == 0, passed.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", "expected small letters"),
        ("../mine", "expected small letters"),
        ("class", "no word of Python"),
        ("com", "'com' is taken: there is ccstae/methods/com"),
        ("ccstae_2023", "'ccstae-2023' is taken: there is ccstae/methods/ccstae_2023"),
        ("base", "'base' is taken: there is ccstae/methods/base.py"),
    ],
)
def test_a_bad_name_for_a_method_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        new_method.write(name)
    with pytest.raises(InputError, match="is no checkout of this project"):
        new_method.write("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []
