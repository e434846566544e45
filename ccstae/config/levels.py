"""Noise levels: the background's share and the electrons per pattern, and series of both."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ccstae.config.base import Settings

MAX_ELECTRONS = 1e10
"""Per pattern: counts are 32-bit numbers."""


class Level(Settings):
    """One noise level: the background's share w of the electrons, and electrons per pattern (inf:
    noise-free).
    """

    background: float = Field(ge=0, lt=1)
    electrons: float = Field(gt=0, allow_inf_nan=True)

    @property
    def name(self) -> str:
        """`clean`, or for example `w0.25_n1e+05`; part of file names."""
        return (
            "clean" if math.isinf(self.electrons) else f"w{self.background:.2f}_n{self.electrons:g}"
        )


def _countable(electrons: float) -> float:
    if electrons > MAX_ELECTRONS and not math.isinf(electrons):
        raise ValueError(f"expected at most {MAX_ELECTRONS:g}, or .inf for the noise-free level")
    return electrons


def _one_is_a_list(kind: Any) -> BeforeValidator:
    """Takes a single value for a list of one."""

    def as_list(given: Any) -> Any:
        return given if isinstance(given, list | tuple) else (given,)

    return BeforeValidator(as_list, json_schema_input_type=kind | tuple[kind, ...])


Share = Annotated[float, Field(ge=0, lt=1)]
Dose = Annotated[float, Field(ge=1, allow_inf_nan=True), AfterValidator(_countable)]


class Noise(Settings):
    """A series of noise levels: every combination of its backgrounds and doses."""

    background: Annotated[tuple[Share, ...], Field(min_length=1), _one_is_a_list(Share)] = (0.0,)
    electrons: Annotated[tuple[Dose, ...], Field(min_length=1), _one_is_a_list(Dose)]
    """Electrons per pattern; .inf gives the noise-free level."""

    @model_validator(mode="after")
    def _clean_has_no_background(self) -> Self:
        if any(map(math.isinf, self.electrons)) and any(self.background):
            raise ValueError("electrons .inf (the noise-free level) goes with background 0 alone")
        return self

    @property
    def levels(self) -> list[Level]:
        """Every combination, backgrounds in the outer loop."""
        pairs = itertools.product(self.background, self.electrons)
        return [Level(background=share, electrons=dose) for share, dose in pairs]
