"""The package's import graph: no cycles, and data flow one way: no stage or room imports a later
one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
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
    "evaluation.published",
    "reporting.tables",
    "reporting.figures.catalogue",
    "reporting.report",
    "gate.compare",
)
# What starts stages, and is started by none.
TOP = {
    "ccstae.cli",
    *(f"ccstae.commands.{name}" for name in ("stages", "scans", "methods", "configs", "arguments")),
    "ccstae.pipeline.stages",
    "ccstae.pipeline.claim",
}
# Packages and lone modules of the package in order: none imports a later one. Not in the graph,
# and so no exception: `config.methods` finds the methods' settings by where they lie, and imports
# them by name.
ROOMS = (
    "version",
    "errors",
    "geometry",
    "machine",
    "config",
    "io",
    "pipeline",
    "specimen",
    "simulation",
    "acquisition",
    "methods",
    "evaluation",
    "reporting",
    "gate",
    "strain_map",
    "commands",
    "cli",
)


def modules() -> dict[str, Path]:
    paths = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


MODULES = modules()


def imports(name: str) -> set[str]:
    """Every module that a module names in its imports, wherever in its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            start = str(node.module)
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                names.add(whole if whole in MODULES else start)
    return names


IMPORTS = {name: imports(name) for name in MODULES}
# Every module is inside `ccstae`; taking the version from there ties nothing together.
GRAPH = {name: (names & set(MODULES)) - {"ccstae"} for name, names in IMPORTS.items()}


def reach(name: str) -> set[str]:
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        new = GRAPH[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


def test_the_graph_is_that_of_the_package() -> None:
    assert "ccstae.geometry" in GRAPH["ccstae.evaluation.metrics"]
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


def room(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


def test_no_room_imports_a_later_one() -> None:
    later = {
        (module, name)
        for module, names in GRAPH.items()
        for name in names
        if module != "ccstae" and room(module) < room(name)
    }
    assert later == set()


def test_only_io_knows_hdf5_and_only_one_module_opens_it() -> None:
    users = {module for module, names in IMPORTS.items() if "h5py" in names}
    assert "ccstae.io.hdf5" in users
    assert {module for module in users if not module.startswith("ccstae.io.")} == set()
    opens = {module for module, path in MODULES.items() if "h5py.File(" in path.read_text()}
    assert opens == {"ccstae.io.hdf5"}


def test_importing_the_package_loads_nothing_but_it() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import ccstae, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in loaded if name.split(".")[0] in ("ccstae", "numpy", "torch")} == {
        "ccstae",
        "ccstae.version",
    }


@pytest.mark.parametrize("name", ccstae.__all__)
def test_a_public_name_is_there_when_it_is_used(name: str) -> None:
    assert getattr(ccstae, name) is not None
    assert name in dir(ccstae)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="read_cuonts"):
        _ = ccstae.read_cuonts


@pytest.mark.parametrize(
    "method", sorted(name for name in MODULES if name.startswith("ccstae.methods."))
)
def test_a_method_cannot_know_the_truth(method: str) -> None:
    hidden = ("ccstae.simulation.", "ccstae.specimen.", "ccstae.evaluation.")
    assert [name for name in reach(method) if name.startswith(hidden)] == []


@pytest.mark.parametrize("module", ["ccstae.geometry", "ccstae.errors", "ccstae.config.base"])
def test_what_all_stand_on_stands_alone(module: str) -> None:
    assert GRAPH[module] == set()
