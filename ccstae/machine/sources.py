"""Which source files of this package something is made from, found from their imports."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# How settings are read and messages shown does not change what a stage computes: the values of its
# settings are watched instead. All of ccstae.config but what a search's choice is read with, and
# the methods' settings where they lie apart.
_PLUMBING = (
    "ccstae",
    "ccstae.cli",
    "ccstae.config",
    "ccstae.errors",
    "ccstae.machine.device",
    "ccstae.machine.finished",
    "ccstae.machine.host",
    "ccstae.machine.progress",
    "ccstae.machine.sources",
    "ccstae.pipeline.claim",
    "ccstae.pipeline.stages",
    "ccstae.version",
)
_CONFIG, _COUNTED = "ccstae.config.", "ccstae.config.plain_yaml"


def made_from(*modules: str) -> list[str]:
    """Source files of modules of this package and of everything of it that they import.

    Args:
        modules: their names, such as `ccstae.simulation.simulate`.

    Returns:
        Paths from the working folder, sorted; of plumbing none.
    """
    visited: set[str] = set()
    ahead = list(modules)
    while ahead:
        module = ahead.pop()
        if module not in visited and not _is_plumbing(module):
            visited.add(module)
            ahead += imports(module)
    return sorted(os.path.relpath(path(module)) for module in visited)


def _is_plumbing(module: str) -> bool:
    of_config = module.startswith(_CONFIG) and module != _COUNTED
    return module in _PLUMBING or of_config or module.endswith(".settings")


@cache
def imports(module: str) -> tuple[str, ...]:
    """The modules of this package that a module imports, wherever in its text, with the packages
    they lie in.
    """
    names = [name for name in module_names(path(module)) if name.split(".")[0] == "ccstae"]
    return tuple(sorted(name for name in names if path(name).is_file()))


def module_names(source: Path) -> set[str]:
    """Every module that a source file may import, wherever in its text, and the packages they lie
    in; none of a file that is no Python.
    """
    try:
        tree = ast.parse(source.read_text())
    except (SyntaxError, ValueError):
        return set()
    imported: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = str(node.module)
            # What is imported from a package may itself be a module.
            imported |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    # Importing a.b.c also runs the packages a and a.b.
    names: set[str] = set()
    for name in imported:
        parts = name.split(".")
        names |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return names


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement of a source file, however deep, without the expressions: those are most of
    the tree, and hold no import.
    """
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            ahead += getattr(node, part, [])


def path(module: str) -> Path:
    """The file of a module of this package."""
    place = _PACKAGE.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
