"""Materials: crystals seen along their zone axis. Those of the package lie in `materials.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from ccstae.config.base import Settings
from ccstae.config.plain_yaml import read_file

Element = Annotated[str, StringConstraints(pattern="^[A-Z][a-z]?$")]


class Material(Settings):
    """A crystal seen along its zone axis: a prototype with species and lattice parameters, or a
    structure file.
    """

    prototype: Literal["mx2-2h", "graphene", "hbn", "square"] | None = None
    species: tuple[Element, ...] = ()
    a_A: float | None = Field(None, gt=0.5, le=50)
    """In-plane lattice parameter."""
    thickness_A: float = Field(0.0, ge=0, le=50)
    """Distance of the outer atomic planes (X-X in an MX2 layer)."""
    layer_distance_A: float | None = Field(None, gt=0, le=50)
    """From one layer to the next, where a scene has several; a structure file has its own: one
    repeat along the zone axis.
    """
    structure: Path | None = None
    """Any structure file that ASE reads; `zone_axis` then lies along the beam."""
    zone_axis: tuple[int, int, int] = (0, 0, 1)
    thermal_A: dict[Element, Annotated[float, Field(ge=0, le=0.5)]] = Field({})
    """Root mean square displacement of an element along one axis, sqrt(B / 8) / pi of the
    Debye-Waller factor B; none: atoms at rest.
    """
    source: str = ""
    """Where the numbers come from."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.prototype is None) == (self.structure is None):
            raise ValueError("give exactly one of prototype and structure")
        if self.prototype is not None:
            needed = {"mx2-2h": 2, "graphene": 1, "hbn": 2, "square": 1}[self.prototype]
            if len(self.species) != needed:
                raise ValueError(
                    f"prototype {self.prototype} takes {needed} species, got {len(self.species)}"
                )
            if self.a_A is None:
                raise ValueError(
                    f"prototype {self.prototype} needs a_A, the in-plane lattice parameter in "
                    f"Angstrom"
                )
            if self.layer_distance_A is not None and self.layer_distance_A <= self.thickness_A:
                raise ValueError(
                    "layer_distance_A must be more than thickness_A, or layers would overlap"
                )
        elif self.layer_distance_A is not None:
            raise ValueError(
                "give no layer_distance_A with a structure: it is one repeat along the zone axis"
            )
        return self


@cache
def of_the_package() -> dict[str, Material]:
    """The materials that every config may use, by id."""
    data = read_file(Path(__file__).with_name("materials.yaml"))
    return {name: Material.model_validate(item) for name, item in data.items()}
