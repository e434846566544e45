"""Plain data from YAML: nothing but mappings, lists, text and numbers, and no key given twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ccstae.errors import InputError

MAX_CHARACTERS = 2**20
MAX_VALUES = 2**17
"""With aliases written out: a few lines of aliases of aliases stand for more than any memory."""
_TOO_MANY = f"more than {MAX_VALUES} values where aliases are written out"


class _Loader(yaml.SafeLoader):
    """Plain data alone, and no key given twice: of two, YAML would keep the last and say
    nothing."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge `<<`, which copies each alias, unless that makes a mapping without end."""
        size = len(node.value)
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(merged, yaml.MappingNode):
                        self.flatten_mapping(merged)
                        size += len(merged.value)
                    if size > MAX_VALUES:
                        raise yaml.constructor.ConstructorError(
                            None, None, _TOO_MANY, key.start_mark
                        )
        super().flatten_mapping(node)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:merge":
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            keys.add(key.value if isinstance(key.value, str) else id(key))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_file(path: Path) -> Any:
    """Plain data from a YAML file.

    Raises:
        InputError: the file cannot be read, is not text, or is no plain YAML.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; expected a YAML config file"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text: {error.reason} at byte {error.start}; expected a YAML config "
            f"file"
        ) from None
    return read_yaml(text, str(path))


def read_yaml(text: str, where: str) -> Any:
    """Plain data from YAML text.

    Args:
        text: at most `MAX_CHARACTERS` of YAML.
        where: what the text is, for messages: the file's name.

    Raises:
        InputError: says what is wrong, and on which line.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{where}: holds {len(text)} characters; expected a config of at most {MAX_CHARACTERS}"
        )
    try:
        data = yaml.load(text, _Loader)  # a SafeLoader
        _check_size(data)
        json.dumps(data, default=str)  # a config that holds itself has no end
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{where}:{line} is not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    except (RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: is no config: {error}; expected mappings, lists, text and numbers, not "
            f"nested without end"
        ) from None
    return data


def _check_size(data: Any) -> None:
    """ValueError where data have too many values, each counted as often as an alias repeats it."""
    values, left = 0, [data]
    while left:
        value = left.pop()
        values += 1
        if values > MAX_VALUES:
            raise ValueError(_TOO_MANY)
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
