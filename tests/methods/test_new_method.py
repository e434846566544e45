"""A method of one's own, begun by `ccstae new-method`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import configured

from ccstae.config.run import dump
from ccstae.errors import InputError
from ccstae.evaluation import new_method
from ccstae.io.maps import read_map


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
    again = in_copy(copied, *CLI, "new-method", "my-own")
    assert again.returncode == 2
    assert "'my-own' is taken: there is ccstae/methods/my_own.py" in again.stderr
    # The example of CONTRIBUTING.md in its place, with its test.
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    method, example = (part.split("```")[0] for part in text.split("```python\n")[1:3])
    (copied / "ccstae" / "methods" / "disks.py").write_text(method)
    (test.parent / "test_disks.py").write_text(example)
    tests = (str(test), str(test.parent / "test_disks.py"))
    passed = in_copy(copied, "-m", "pytest", "-q", *tests)
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
