"""`extends: PARENT`: a config takes from its parent what it does not give itself.

A block that the child gives replaces the parent's whole block. In a block of items, such as
`scenes`, `ID: inherit` takes one item of the parent by its id. Nothing is merged deeper: an item is
the child's or the parent's, so nothing has to be unset, and what a config holds is read off without
knowing how blocks would mix.

A parent may extend another file. A config can then build on any config that is there, without a
look at how that one is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccstae.config.plain_yaml import read_file
from ccstae.errors import InputError, unknown

EXTENDS, INHERIT = "extends", "inherit"
ITEM_OF = {
    "materials": "material",
    "scenes": "scene",
    "noise": "series",
    "scans": "scan",
    "methods": "method",
}
"""The blocks of items by id, and what an item is called."""


def with_parent(
    data: Mapping[str, Any], where: str, folder: Path, children: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """A config's data with what it takes from its parent, and without `extends`.

    The parent's `name` is not taken: it names the folder of the parent's results.

    Args:
        data: the config as its file gives it.
        where: what the config is, for messages.
        folder: the folder that the parent's path starts from.
        children: parents that have been read on the way here.

    Raises:
        InputError: the parent is missing, no config or a descendant of itself, or lacks an item to
            inherit.
    """
    if EXTENDS not in data:
        return with_blocks(data, {}, where, None)
    parent_path = _parent_path(data[EXTENDS], where, folder)
    if parent_path.resolve() in children:
        raise InputError(
            f"{where}: extends: {data[EXTENDS]} extends itself in the end; expected a parent that "
            f"does not build on this config"
        )
    parent = read_file(parent_path)
    if not isinstance(parent, dict):
        raise InputError(
            f"{where}: extends: {parent_path}: expected a mapping of settings, got "
            f"{type(parent).__name__}"
        )
    children = (*children, parent_path.resolve())
    parent = with_parent(parent, str(parent_path), parent_path.parent, children)
    parent.pop("name", None)
    child = {block: given for block, given in data.items() if block != EXTENDS}
    return with_blocks(child, parent, where, str(parent_path))


def with_blocks(
    child: Mapping[str, Any], parent: Mapping[str, Any], where: str, parent_name: str | None
) -> dict[str, Any]:
    """The parent's blocks with the child's in their place, `inherit` taken from the parent.

    Args:
        child: blocks that replace the parent's.
        parent: blocks of the config that is extended.
        where: what the child is, for messages.
        parent_name: what the parent is, for messages; none where there is no parent.

    Raises:
        InputError: an item to inherit that the parent lacks.
    """
    blocks = {**parent, **child}
    for block in ITEM_OF:
        items = child.get(block)
        if isinstance(items, dict):
            blocks[block] = {
                item_id: _inherited(block, item_id, parent, where, parent_name)
                if item == INHERIT
                else item
                for item_id, item in items.items()
            }
    return blocks


def _inherited(
    block: str, item_id: str, parent: Mapping[str, Any], where: str, parent_name: str | None
) -> Any:
    place = f"{where}: {block}.{item_id}: inherit"
    if parent_name is None:
        raise InputError(f"{place}: nothing is extended; expected `extends: PARENT` in this config")
    items = parent.get(block)
    if not isinstance(items, dict) or not items:
        raise InputError(f"{place}: {parent_name} gives no {block}; expected the item itself")
    if item_id not in items:
        known = [str(name) for name in items]
        raise InputError(f"{place}: {parent_name}: {unknown(ITEM_OF[block], str(item_id), known)}")
    return items[item_id]


def _parent_path(given: Any, where: str, folder: Path) -> Path:
    if not isinstance(given, str) or os.path.isabs(given):
        raise InputError(
            f"{where}: extends: got {given!r}; expected the path of one config, from the folder of "
            f"this one"
        )
    path = folder / given
    if not os.path.isfile(path):  # a device or a pipe might never end
        raise InputError(
            f"{where}: extends: {path}: no such file; expected the path of one config, from the "
            f"folder of this one"
        )
    return path
