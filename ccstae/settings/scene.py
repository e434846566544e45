"""Settings of the scenes, one model a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ccstae.settings.base import Id, Settings

Strain = Annotated[float, Field(ge=-0.1, le=0.1)]


class Scan(Settings):
    """A raster of beam positions centred on the origin, rows along y, columns along x."""

    shape: tuple[Annotated[int, Field(ge=2, le=4096)], Annotated[int, Field(ge=2, le=4096)]] = (32, 32)
    step_A: float = Field(32.0, gt=0, le=1000)


class Inclusion(Settings):
    """A round region of smooth extra deformation: u = A (X - c) (1 - |X - c|^2 / R^2)^3 inside R, none outside.

    At the centre F - I = A = [[exx, exy - rotation], [exy + rotation, eyy]].
    """

    centre_A: tuple[float, float]
    radius_A: float = Field(gt=0)
    exx: Strain = 0.0
    eyy: Strain = 0.0
    exy: Strain = 0.0
    rotation: Strain = 0.0
    """In radians, to first order."""


class SceneSettings(Settings):
    """What every scene has."""

    materials: tuple[Id, ...] = Field(min_length=1, max_length=8)
    scan: Scan = Scan()


class HeterostructureSettings(SceneSettings):
    """A coherent lateral heterostructure: one flake, its first material on the left, the second on the right.

    Total strain is against the first material's lattice. Across the interface exx steps to the misfit over
    `interface_width_A`; eyy, which coherency makes continuous, relaxes over `relaxation_A`.
    """

    kind: Literal["heterostructure"]
    materials: tuple[Id, Id]
    interface_A: float = 120.0
    """x of the interface in the reference lattice."""
    interface_width_A: float = Field(120.0, ge=0)
    relaxation_A: float = Field(900.0, gt=0)
    inclusions: tuple[Inclusion, ...] = ()
    edge_offset_A: float | None = 430.0
    """Distance of the flake's straight edge from the origin, along the edge normal; none: the flake fills the field."""
    edge_normal_deg: float = 90.0
    reference_A: tuple[float, float, float, float] = (-520.0, -520.0, -390.0, 390.0)
    """Strain-free reference region of the scan: x0, y0, x1, y1."""
    interior_gradient_per_A: float = Field(1.5e-4, gt=0)
    """Largest strain gradient that still counts as interior."""


AnyScene = HeterostructureSettings
