"""Plain data from YAML: nothing but mappings, lists, text and numbers, and no key given twice."""

from __future__ import annotations

import json
from typing import Any

import yaml

from ccstae.errors import InputError

MOST_CHARACTERS = 2**20


class _Loader(yaml.SafeLoader):
    """Plain data alone, and no key given twice: of two, YAML would keep the last and say
    nothing."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(text: str, where: str) -> Any:
    """Plain data from YAML; InputError says what is wrong, and on which line."""
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"{where}: holds {len(text)} characters; expected a config of at most {MOST_CHARACTERS}"
        )
    try:
        data = yaml.load(text, _Loader)  # a SafeLoader
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
