"""Baseline files of the gate: what was measured once, and how far it may move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import scipy
import yaml
from pydantic import Field, FiniteFloat, ValidationError

from ccstae.config.base import Id, Settings
from ccstae.errors import InputError
from ccstae.io.atomic import write_text

Better = Literal["lower", "higher", "same"]


class BaselineEntry(Settings):
    """One line of a baseline: what was measured, and how far it may move."""

    value: FiniteFloat
    spread: FiniteFloat = Field(ge=0)
    tolerance: FiniteFloat = Field(ge=0)
    better: Better
    gate: bool


class Roles(Settings):
    """Methods that the gate does not hold as it holds the others, by their ids in the run's
    config.
    """

    controls: tuple[Id, ...] = ()
    """Answer no strain everywhere, or nothing anywhere."""
    watched: tuple[Id, ...] = ()
    """Errors depend on the machine and do not gate; that there is an answer does."""
    watched_noise_free: tuple[Id, ...] = ()
    """The same of the errors without noise alone."""


class Baseline(Settings):
    """A baseline file: entries by `scene method level region quantity metric`, where they were
    measured, and the roles of methods, which are set by hand.
    """

    roles: Roles = Roles()
    environment: dict[str, Any]
    seeds: int
    entries: dict[str, BaselineEntry]


def seed_of(key: str) -> str | None:
    """`seed=1` of an entry that is one seed's alone; None of all others."""
    last = key.rsplit(" ", 1)[-1]
    return last if last.startswith("seed=") else None


def false_breaches(baseline: Baseline, seeds: int = 3) -> float:
    """Breaches to expect in a run of unchanged code with so many seeds of its own.

    sum over the entries that gate and scatter of sides * P(t > tolerance / (spread sqrt(v(seeds) +
    v(seeds of the baseline)))), with the t law of the baseline's seeds less one degrees of freedom:
    values are taken as normal, and their spread is as uncertain as few seeds leave it (a floor is
    breached more seldom than that). v is the variance of a median over that of one value. Entries
    go together, so fewer runs fail than this.
    """
    off = math.sqrt(_median_variance(seeds) + _median_variance(baseline.seeds))
    asked = [
        entry
        for key, entry in baseline.entries.items()
        if entry.gate and entry.spread > 0 and seed_of(key) is None
    ]
    sides = {"lower": 1, "higher": 1, "same": 2}
    freedom = baseline.seeds - 1
    return float(
        sum(
            sides[e.better] * scipy.stats.t.sf(e.tolerance / (e.spread * off), freedom)
            for e in asked
        )
    )


def _median_variance(n: int) -> float:
    """Variance of the median of n normal values of variance 1: exact for 1 and 2, pi / 2n for many,
    within 15 % between.
    """
    return 1 / n if n < 3 else math.pi / (2 * n + math.pi - 2)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as YAML, one line an entry, sorted, whole or not at all.

    Raises:
        InputError: where the system takes no more of it.
    """

    def line(value: object) -> str:
        return yaml.safe_dump(
            value, default_flow_style=True, sort_keys=False, width=math.inf
        ).strip()

    roles = "".join(
        f"  {role}: {line(methods)}\n"
        for role, methods in baseline.roles.model_dump(mode="json").items()
    )
    head = yaml.safe_dump(
        {"environment": baseline.environment, "seeds": baseline.seeds}, sort_keys=False
    )
    entries = "".join(
        f"  {key}: {line(entry.model_dump())}\n" for key, entry in sorted(baseline.entries.items())
    )
    text = f"roles:\n{roles}{head}entries:\n{entries}"
    write_text(
        path,
        f"# Written by `ccstae regress --update`, which keeps the roles that stand here.\n{text}",
    )


def read_baseline(path: Path) -> Baseline:
    """Read and check a baseline.

    Raises:
        InputError: where it is missing, no YAML, or unfit.
    """
    try:
        return Baseline.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; expected a baseline, which --update writes"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not valid YAML: {getattr(error, 'problem', error)}; expected a baseline"
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}; expected a baseline"
        ) from None
