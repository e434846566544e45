"""The package's import graph: no cycles, and data flow one way: no stage imports a later one."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ccstae

PACKAGE = Path(ccstae.__file__).parent
STAGES = (
    "simulation.simulate",
    "simulation.noise",
    "simulation.bound",
    "methods.run",
    "evaluation.score",
    "evaluation.tuning",
    "evaluation.throughput",
    "reporting.tables",
    "reporting.figures.catalogue",
    "reporting.report",
    "gate.compare",
)
TOP = {
    "ccstae.cli",
    "ccstae.pipeline.stages",
    "ccstae.pipeline.claim",
}  # what starts stages, and is started by none


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """Modules of the package that a module names in its imports, wherever in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            start = str(node.module)
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                found.add(whole if whole in MODULES else start)
    # Every module is inside `ccstae`; taking the version from there ties nothing together.
    return (found & set(MODULES)) - {"ccstae"}


GRAPH = {name: imports(name) for name in MODULES}


def reach(name: str) -> set[str]:
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        new = GRAPH[ahead.pop()] - seen
        seen |= new
        ahead += new
    return seen


def test_the_graph_is_that_of_the_package() -> None:
    assert "ccstae.geometry" in GRAPH["ccstae.evaluation.score"]
    assert "ccstae.geometry" in reach("ccstae.reporting.report")
    assert len(GRAPH) > 40


def test_no_module_imports_itself_round_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_a_later_one(stage: str) -> None:
    later = {f"ccstae.{name}" for name in STAGES[STAGES.index(stage) + 1 :]} | TOP
    assert reach(f"ccstae.{stage}") & later == set()


@pytest.mark.parametrize(
    "method", sorted(name for name in MODULES if name.startswith("ccstae.methods."))
)
def test_a_method_cannot_know_the_truth(method: str) -> None:
    hidden = ("ccstae.simulation.", "ccstae.specimen.", "ccstae.evaluation.")
    assert [name for name in reach(method) if name.startswith(hidden)] == []


@pytest.mark.parametrize("module", ["ccstae.geometry", "ccstae.errors", "ccstae.config.base"])
def test_what_all_stand_on_stands_alone(module: str) -> None:
    assert GRAPH[module] == set()
