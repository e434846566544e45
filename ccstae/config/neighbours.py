"""The stages that let a method see neighbouring positions: `denoise` averages patterns before it,
`smooth` averages its map after it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ccstae.config.base import Id, Settings


class Gauss(Settings):
    """A Gaussian over the scan."""

    kind: Literal["gauss"]
    width_steps: float = Field(1.0, ge=0, le=20)
    """Its standard deviation in steps of the scan; 0 changes nothing."""


class TensorSvd(Settings):
    """A truncated higher-order singular value decomposition: what few rows, columns and patterns of
    the scan can explain together.
    """

    kind: Literal["tsvd"]
    scan_rank: int = Field(8, ge=1)
    """Independent rows, and independent columns, of the scan that are kept."""
    pattern_rank: int = Field(10, ge=1)
    """Independent patterns that are kept."""


class Program(Settings):
    """A program of your own that reads a counts file and writes another one."""

    kind: Literal["program"]
    command: str = Field(min_length=1)
    """Runs without a shell, as trusted code, like that of a method."""
    environment: Id | None = None
    """The program's own Python environment, as that of a method."""
    settings: dict[str, Any] = Field({})
    time_limit_s: float = Field(3600.0, gt=0)


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError("expected an odd number of steps, which has a middle")
    return window


class Median(Settings):
    """The median of every component in a square window of the scan."""

    kind: Literal["median"]
    window_steps: Annotated[int, Field(ge=1, le=51), AfterValidator(_odd)] = 3
    """The window's side, an odd number of positions; 1 changes nothing."""


class TotalVariation(Settings):
    """Least total variation: flat areas with sharp edges."""

    kind: Literal["tv"]
    weight: float = Field(1.0, ge=0, le=100)
    """What variation costs against departure, for components in units of their own noise; 0 changes
    nothing.
    """


Denoise = Annotated[Gauss | TensorSvd | Program, Field(discriminator="kind")]
Smooth = Annotated[Gauss | Median | TotalVariation, Field(discriminator="kind")]

STAGES = ("denoise", "smooth")
"""Their names in a method's entry; a search calls a setting of a stage `STAGE.SETTING`."""

TRIED: dict[str, dict[str, list[Any]]] = {
    "gauss": {"width_steps": [0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0]},
    "tsvd": {"scan_rank": [4, 6, 8, 12, 16, 24], "pattern_rank": [3, 5, 10, 20, 40, 80]},
    "program": {},
    "median": {"window_steps": [1, 3, 5, 7]},
    "tv": {"weight": [0.0, 0.5, 1.0, 2.0, 3.0, 5.0]},
}
"""Values that `tune: true` tries of a stage, by its kind."""
