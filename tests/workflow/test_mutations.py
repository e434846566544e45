"""The planted degradations of tools/mutation.py still fit the sources they change."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTATIONS = runpy.run_path(str(ROOT / "tools" / "mutation.py"))["MUTATIONS"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_degradation_changes_one_line_and_leaves_it_python(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
