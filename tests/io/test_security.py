"""What a stranger's config or file can do: nothing but fail."""

from __future__ import annotations

import ast
import copy
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from good_config import GOOD, run

import ccstae
from ccstae.config import plain_yaml
from ccstae.config.materials import Material
from ccstae.config.methods import Method
from ccstae.config.run import dump, parse
from ccstae.errors import InputError
from ccstae.io.counts import write_counts
from ccstae.methods import external
from ccstae.pipeline import claim
from ccstae.simulation.ideal import IdealCrystal
from ccstae.specimen.crystal import crystal

PACKAGE = Path(ccstae.__file__).parent
ROOT = PACKAGE.parent
HARM = (
    "$(touch x)",
    "`touch x`",
    "; touch x",
    "x; touch x #",
    "| touch x",
    "&& touch x",
    "\n touch x",
    "'; touch x; '",
    '"; touch x; "',
)
# Names by which the package could load code as data, or give text to a shell; with what makes a
# call harmless.
CALLS = {
    "pickle.load": None,
    "pickle.loads": None,
    "yaml.load": "_Loader",
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "np.load": "allow_pickle=False",
    "numpy.load": "allow_pickle=False",
    "pd.read_pickle": None,
    "torch.load": "weights_only=True",
    "os.system": None,
    "os.popen": None,
    "eval": None,
    "exec": None,
    "__import__": None,
}


def parsed() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def test_nothing_loads_code_as_data_or_starts_a_shell() -> None:
    found = []
    for name, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [str(getattr(node, "module", ""))]
                found += [
                    f"{name}: imports {n}"
                    for n in names
                    if n.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "joblib")
                ]
            if isinstance(node, ast.Call):
                called, text = ast.unparse(node.func), ast.unparse(node)
                if called in CALLS and not (CALLS[called] and CALLS[called] in text):
                    found.append(f"{name}:{node.lineno}: {text}")
                found += [
                    f"{name}:{node.lineno}: {text}"
                    for k in node.keywords
                    if k.arg == "shell" and ast.unparse(k.value) != "False"
                ]
    assert found == []


def test_the_loader_of_configs_makes_plain_data_alone() -> None:
    assert issubclass(plain_yaml._Loader, yaml.SafeLoader)
    with pytest.raises(InputError, match="could not determine a constructor"):
        plain_yaml.read_yaml("!!python/object/apply:pathlib.Path.touch [x]", "it")


def test_a_structure_file_that_holds_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    """ASE knows old trajectories, which are pickles, by their name or first bytes."""
    harm = b"cos\nsystem\n(S'touch " + str(tmp_path / "x").encode() + b"'\ntR."
    folder = tmp_path / "old.bundle"
    folder.mkdir()
    (folder / "metadata").write_bytes(harm)
    for name in ("old.traj", "old.trj", "old.db"):
        (tmp_path / name).write_bytes(b"PickleTrajectory" + harm)
    for name in ("old.traj", "old.trj", "old.db", "old.bundle"):
        with pytest.raises(
            InputError,
            match=r"materials\.A\.structure: .*(its format is|bundle).*expected a structure file",
        ):
            crystal("A", Material(structure=tmp_path / name))
    assert not (tmp_path / "x").exists()


def strings(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config holds text, keys of its mappings by id included (marked by a last part
    None)."""
    if isinstance(data, dict):
        for key, value in data.items():
            if path and path[-1] in ("materials", "scenes", "noise", "methods"):
                yield (*path, key, None)
            yield from strings(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from strings(value, (*path, i))
    elif isinstance(data, str):
        yield path


WHOLE = copy.deepcopy(GOOD)
WHOLE["methods"]["mine"] = {"command": "mine --fast", "settings": {"mode": "slow"}}
WHOLE["methods"]["mine"]["tune"] = {"mode": ["slow", "fast"]}
WHOLE["methods"]["other"] = {
    "method": "com",
    "settings": {"background": "ring", "device": "cpu"},
    "tune": {"weights": ["intensity"]},
}
WHOLE["methods"]["cepstral"] = {"settings": {"background": "radial"}, "tune": True}
WHOLE["materials"]["WS2"] |= {"source": "a paper", "thermal_A": {"W": 0.1}}
WHOLE["materials"]["file"] = {"structure": "a.cif"}
WHOLE["scenes"]["pair"]["stacking"] = "AA'"
WHOLE["scenes"]["given"] = {"kind": "labelled", "materials": ["WS2"], "tune": True}
for where, name in (
    ({"path": "a.npy"}, "exx"),
    ({"path": "a.h5", "dataset": "a"}, "eyy"),
    ({"url": "https://a.org/b"}, "exy"),
):
    WHOLE["scenes"]["given"][name] = where | {"sha256": "0" * 64}
WHOLE["scenes"]["given"]["rotation"] = WHOLE["scenes"]["given"]["exx"]
FREE = {
    ("methods", "mine", "command"),
    ("methods", "mine", "settings", "mode"),
    ("methods", "mine", "tune", "mode", 0),
    ("methods", "mine", "tune", "mode", 1),
    ("materials", "WS2", "source"),
    ("materials", "file", "structure"),
    ("scenes", "given", "exx", "path"),
    ("scenes", "given", "eyy", "path"),
    ("scenes", "given", "eyy", "dataset"),
    ("scenes", "given", "rotation", "path"),
}


def with_text(path: tuple[Any, ...], text: str) -> dict[str, Any]:
    data = copy.deepcopy(WHOLE)
    *outer, last = path[:-1] if path[-1] is None else path
    place = data
    for key in outer:
        place = place[key]
    if path[-1] is None:
        place[text] = place.pop(last)
    else:
        place[last] = text
    return data


@pytest.mark.parametrize("path", list(strings(WHOLE)), ids=lambda path: ".".join(map(str, path)))
def test_a_shell_command_in_any_text_of_a_config_does_nothing(
    path: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in HARM:
        data = with_text(path, text)
        if path in FREE:  # text for people, and a method's own: kept as it is, word for word
            resolved = dump(parse(data))
            assert dump(parse(yaml.safe_load(resolved))) == resolved
        else:
            with pytest.raises(InputError):
                parse(data)
    assert list(tmp_path.iterdir()) == []


def test_a_shell_command_as_a_method_is_no_shell_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = tmp_path / "counts.h5"
    made = IdealCrystal().counts(np.eye(2)[None, None], 1e4)
    write_counts(counts, made.counts, made.counts.shape, made.calibration, made.probe)
    for text in ("$(touch x)", "true; touch x", "true | touch x", "`touch x`"):
        with pytest.raises(InputError, match=r"cannot be started|failed|wrote no map"):
            external.run("mine", Method(command=text), counts, tmp_path / "map.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["counts.h5"]


def test_a_hostile_config_does_nothing_in_a_run(tmp_path: Path) -> None:
    """Snakemake plans and runs a job with text that a shell would follow: the text arrives, the
    shell follows nothing.
    """
    from checkout import copy as checkout

    made = checkout(tmp_path / "checkout")
    harm = "$(touch $HOME/x) `touch x`; touch x '; touch x; \" {wildcards.x} {{ %s"
    data = with_text(("materials", "WS2", "source"), harm)
    data["methods"] = {
        "mine": {"command": "$(touch x) ; touch x `touch x` {x}", "settings": {"a": harm, harm: 1}}
    }
    data["noise"], data["seeds"] = {"one": {"electrons": 100}}, {"test": [1], "tune": []}
    (made.path / "a.cif").touch()  # a job's input
    (made.path / "hostile.yaml").write_text(yaml.safe_dump(data))
    # The stand-in keeps what it is given, to see that it arrives as it was.
    made.edit(
        "bin/ccstae",
        lambda text: text.replace(
            "cat > /dev/null", 'case "$*" in *" map "*) cat > given ;; *) cat > /dev/null ;; esac'
        ),
    )
    done = made.snakemake("--configfile", "hostile.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(made.path.rglob("x"))
    assert (
        parse(yaml.safe_load((made.path / "given").read_text())).methods["mine"].settings["a"]
        == harm
    )


@pytest.mark.parametrize(
    "name",
    ["..", "../up", "/tmp/x", "a/../../b", ".", "", "a/b", "a\\b", "~", "-rf", "a\nb", "é", "a\0"],
)
def test_outputs_stay_inside_results_whatever_the_name(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        parse({**GOOD, "name": name})


@pytest.mark.parametrize("what", ["scenes", "methods", "materials", "noise"])
@pytest.mark.parametrize("item_id", ["../up", "/tmp/x", "a b", "a;b", "$a", "-a", "", "a.b"])
def test_ids_are_safe_in_paths_and_shells(what: str, item_id: str) -> None:
    data = copy.deepcopy(GOOD)
    data[what][item_id] = next(iter(data[what].values()))
    with pytest.raises(InputError, match=what):
        parse(data)


def test_a_template_in_a_config_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake can run Python that stands in a config file; `make` has the file checked first, and
    that runs none.
    """
    path = tmp_path / "config.yaml"
    path.write_text(
        f"__use_yte__: true\n?__import__('pathlib').Path({str(tmp_path / 'x')!r}).touch(): {{}}\n"
        + yaml.safe_dump(GOOD)
    )
    assert run("config", "check", str(path), monkeypatch=monkeypatch) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("\nrun:") :]
    assert recipe.index('ccstae config check "$(CONFIG)"') < recipe.index("snakemake")


def test_a_folder_that_is_no_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(InputError, match=r"results/mine: cannot be written: Not a directory"):
        claim.claim(tmp_path / "results" / "mine")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(handle: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claim.fcntl, "flock", refused)
    claim.claim(tmp_path / "mine").close()
    assert "takes no locks (No locks available)" in capsys.readouterr().err


def test_the_claim_goes_with_its_process(tmp_path: Path) -> None:
    held = claim.claim(tmp_path / "mine")
    with pytest.raises(InputError, match="another run is writing there"):
        claim.claim(tmp_path / "mine")
    held.close()
    claim.claim(tmp_path / "mine").close()


@pytest.mark.parametrize("size", [0, 4096])
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(size: int, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(GOOD))
    program = (
        "import resource, sys, numpy as np\nfrom ccstae.io.maps import Map, write_map\n"
        "from ccstae.cli import fail\nfrom ccstae.errors import InputError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "try:\n    write_map('out/map.h5', Map(np.ones((64, 64, 2, 2)), {}))\n"
        "except InputError as error:\n    fail(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[0].startswith(
        "error: out/map.h5: cannot be written: File too large"
    )
    assert list((tmp_path / "out").iterdir()) == []
