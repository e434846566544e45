"""Baseline files of the gate: what was measured once, and how far it may move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, FiniteFloat, ValidationError

from ccstae.errors import InputError
from ccstae.settings.base import Settings

Better = Literal["lower", "higher", "same"]


class Entry(Settings):
    """One line of a baseline."""

    value: FiniteFloat
    spread: FiniteFloat = Field(ge=0)
    tolerance: FiniteFloat = Field(ge=0)
    better: Better
    gate: bool


class Baseline(Settings):
    """A baseline file: entries by `scene method level region quantity metric`, and where they were measured."""

    environment: dict[str, Any]
    seeds: int
    entries: dict[str, Entry]


def dump(baseline: Baseline) -> str:
    """The baseline as YAML, one line an entry, sorted."""

    def line(value: object) -> str:
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf).strip()

    head = yaml.safe_dump({"environment": baseline.environment, "seeds": baseline.seeds}, sort_keys=False)
    entries = "".join(f"  {key}: {line(entry.model_dump())}\n" for key, entry in sorted(baseline.entries.items()))
    return f"# Written by `ccstae regress --update`.\n{head}entries:\n{entries}"


def load(path: Path) -> Baseline:
    """Read a baseline; InputError where it is missing or unfit."""
    try:
        return Baseline.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected a baseline, which --update writes") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {getattr(error, 'problem', error)}; expected a baseline") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}; expected a baseline") from None
