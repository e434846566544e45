"""Settings of the scenes, one model a kind."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from ccstae.config.base import Id, Settings
from ccstae.config.microscope import Nuisances

Strain = Annotated[float, Field(ge=-0.1, le=0.1)]
Rectangle = tuple[float, float, float, float]
Lean = Annotated[float, Field(ge=-50, le=50)]
Stacking = Literal["AA", "AA'", "AB", "ABC"]


class Scan(Settings):
    """A raster of beam positions centred on the origin, rows along y, columns along x."""

    shape: tuple[Annotated[int, Field(ge=2, le=4096)], Annotated[int, Field(ge=2, le=4096)]] = (
        32,
        32,
    )
    """Rows and columns."""
    step_A: float = Field(32.0, gt=0, le=1000)


class SceneSettings(Settings):
    """What every scene has."""

    materials: tuple[Id] | tuple[Id, Id]
    scan: Scan = Scan()
    lattice_deg: float = Field(0.0, ge=-180, le=180)
    """Turns every lattice: the angle of its first vector from x."""
    layers: int = Field(1, ge=1, le=200)
    """Layers of the specimen, one above another."""
    stacking: Stacking | None = None
    """AA: each above the last. AA': each turned by half a turn against the last (2H of MX2, hBN).
    AB: every other one shifted by a third of the cell's long diagonal (graphite). ABC: each shifted
    by another third (3R of MX2). None: that of the bulk crystal.
    """
    tilt_mrad: tuple[Lean, Lean] = (0.0, 0.0)
    """Lean of the specimen's normal from the beam towards x and y."""
    nuisances: Nuisances | None = Field(None, exclude_if=lambda given: given is None)
    """Of the instrument, for this scene alone, in place of the microscope's."""
    interior_gradient_per_A: float = Field(1.5e-4, gt=0)
    """Largest strain gradient that still counts as interior."""
    tune: bool = False
    """For choosing the settings of methods that ask for it, and never scored."""

    @field_validator("materials", mode="before")
    @classmethod
    def _as_many_as_the_kind_takes(cls, materials: Any) -> Any:
        needed = len(get_args(cls.model_fields["materials"].annotation))
        if isinstance(materials, list | tuple) and len(materials) != needed:
            raise ValueError(
                "expected one material" if needed == 1 else "expected two materials, left and right"
            )
        return materials


class Inclusion(Settings):
    """A round region of smooth extra deformation: u = A (X - c) (1 - |X - c|^2 / R^2)^3 inside R,
    none outside.

    At the centre F - I = A = [[exx, exy - rotation], [exy + rotation, eyy]].
    """

    centre_A: tuple[float, float]
    radius_A: float = Field(gt=0)
    exx: Strain = 0.0
    eyy: Strain = 0.0
    exy: Strain = 0.0
    rotation: Strain = 0.0
    """In radians, to first order."""


class Dislocations(Settings):
    """An endless row of edge dislocations on the interface, whose Burgers vectors along it relieve
    the misfit.
    """

    spacing_A: float | None = Field(None, gt=0)
    """Distance of neighbours (more than the scan is high: a single one); none: what relieves all of
    the misfit.
    """
    y_A: float = 0.0
    """y of one of them in the reference configuration."""
    poisson_ratio: float = Field(0.22, gt=-1, lt=1)
    """Of the free layer, in its plane. 0.22 is an assumption, of the size that first-principles
    calculations give for MX2 layers.
    """
    core_A: float = Field(12.0, gt=0, le=200)
    """Distance from a dislocation line within which a position is marked `core`."""


class Ripple(Settings):
    """Parallel out-of-plane waves with flat ends that bend the layer and do not stretch it."""

    height_A: float = Field(gt=0)
    """From valley to crest."""
    wavelength_A: float = Field(gt=0)
    """Along the layer."""
    periods: int = Field(1, ge=1)
    centre_A: tuple[float, float] = (0.0, 0.0)
    direction_deg: float = 0.0
    """Direction of the wave vector, from x towards y."""

    @model_validator(mode="after")
    def _not_folded(self) -> Self:
        if self.height_A * 3.1416 > 0.5 * self.wavelength_A:
            raise ValueError(
                "the layer would be steeper than 30 degrees: height_A must stay below 0.159 "
                "wavelength_A"
            )
        return self


class HeterostructureSettings(SceneSettings):
    """A coherent lateral heterostructure: one flake, its first material on the left, the second on
    the right.

    Total strain is against the first material's lattice. Across the interface exx steps to the
    misfit over `interface_width_A`; eyy, which coherency makes continuous, relaxes over
    `relaxation_A`.
    """

    kind: Literal["heterostructure"]
    materials: tuple[Id, Id]
    interface_A: float = 120.0
    """x of the interface in the reference lattice."""
    interface_width_A: float = Field(120.0, ge=0)
    """Over which exx goes from one material's to the other's; 0 is atomically sharp."""
    relaxation_A: float = Field(900.0, gt=0)
    """Over which eyy relaxes."""
    dislocations: Dislocations | None = None
    inclusions: tuple[Inclusion, ...] = ()
    ripple: Ripple | None = None
    edges: Literal[1, 3] = 1
    """Straight edges onto vacuum: 1 cuts off a half plane, 3 leave an equilateral triangle."""
    edge_offset_A: float | None = 430.0
    """Distance of the edges from `flake_centre_A`; none: the flake fills the field."""
    edge_normal_deg: float = 90.0
    """Direction out of the first edge, from x towards y."""
    flake_centre_A: tuple[float, float] = (0.0, 0.0)
    reference_A: Rectangle = (-520.0, -520.0, -390.0, 390.0)
    """Strain-free reference region of the scan: x0, y0, x1, y1."""


class PolycrystalSettings(SceneSettings):
    """Grains of one material with sharp boundaries: Voronoi cells, each with a strain and a
    rotation of its own.

    The grain that holds most of the scan is the reference: strain-free and not rotated.
    """

    kind: Literal["polycrystal"]
    materials: tuple[Id]
    grains: int = Field(20, ge=2, le=10000)
    strains: tuple[Strain, ...] = Field((-0.02, -0.01, 0.0, 0.01, 0.02), min_length=1)
    """exx, eyy and exy of each grain are drawn from these."""
    rotation_range_deg: float = Field(60.0, ge=0, le=360)
    """Rotations are drawn evenly from this range."""
    closest_A: float = Field(1.2, ge=0, le=3)
    """At a boundary, of two atoms nearer than this the one of the later grain goes."""
    seed: int = Field(1, ge=0)


class RotationSettings(SceneSettings):
    """A lattice that turns evenly from the left of the scan to the right at a small strain; one
    uniform lattice a position.
    """

    kind: Literal["rotation"]
    materials: tuple[Id]
    range_deg: float = Field(70.0, ge=0, le=360)
    """From the first three columns, which are neither turned nor strained, to the last; 0: the same
    strains without rotation.
    """
    exx: Strain = 0.005
    eyy: Strain = -0.005
    exy: Strain = 0.0
    """Strain in the laboratory's axes, largest at the bottom row, opposite at the top."""


class RampSettings(SceneSettings):
    """A flake in which every component of strain is swept evenly: exx along x, eyy along y, exy and
    rotation along the diagonals.

    Seen to first order in the strain; truth is exact.
    """

    kind: Literal["ramp"]
    materials: tuple[Id]
    exx: Strain = 0.02
    """At the right of the scan; the opposite at the left."""
    eyy: Strain = 0.02
    """At the bottom of the scan; the opposite at the top."""
    exy: Strain = 0.02
    """At the bottom right corner of the scan; the opposite at the top left. The rotation, in
    radians, reaches it in the other two.
    """


class RipplesSettings(SceneSettings):
    """Strain waves along x, each wavelength in a band of its own across y, below a band that is
    flat: how fine a map shows strain.

    Every wave has exx, and a quarter of a wavelength on exy and rotation, which share the
    transverse displacement and so have half its amplitude each.
    """

    kind: Literal["ripples"]
    materials: tuple[Id]
    scan: Scan = Scan(shape=(56, 40), step_A=40)
    amplitude: float = Field(0.012, gt=0, le=0.02)
    """Of exx; that of exy, and of the rotation in radians, is half of it."""
    wavelengths_steps: tuple[Annotated[float, Field(gt=2)], ...] = Field(
        (2.5, 3.8, 5.7, 8.7, 13.2, 20.0), min_length=2
    )
    """In scan steps, from the shortest to the longest. A scan shows no wave of two steps or
    less.
    """

    @field_validator("wavelengths_steps")
    @classmethod
    def _rising(cls, lengths: tuple[float, ...]) -> tuple[float, ...]:
        if any(long <= short for short, long in pairwise(lengths)):
            raise ValueError("expected each wavelength to be longer than the one before")
        return lengths


class UniformSettings(SceneSettings):
    """One and the same lattice everywhere, for precision."""

    kind: Literal["uniform"]
    materials: tuple[Id]
    exx: Strain = 0.0
    eyy: Strain = 0.0
    exy: Strain = 0.0
    rotation_deg: float = Field(0.0, ge=-180, le=180)


class ArrayFile(Settings):
    """An array in an npy or HDF5 file, here or on the web, checked by its sum. It has the shape of
    the scan, or a whole multiple of it, of which every n-th row and column is taken.
    """

    path: Path | None = None
    """Relative to the folder of the run (the project's root)."""
    url: str | None = Field(None, pattern=r"^https://")
    """Downloaded once and kept under results/.cache. Not where a file of this name, or of its
    sha256, lies in the folder that the environment variable CCSTAE_CACHE names.
    """
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dataset: str | None = None
    """Name of the dataset, in an HDF5 file."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give exactly one of path and url")
        return self


class LabelledSettings(SceneSettings):
    """Truth given as arrays on the scan or on a finer one, rows along y; one uniform lattice a
    position. NaN in any of them is vacuum.
    """

    kind: Literal["labelled"]
    materials: tuple[Id]
    exx: ArrayFile
    eyy: ArrayFile
    exy: ArrayFile
    """Tensor shear strain."""
    rotation: ArrayFile
    """Radians, positive from x towards y."""
    reference_A: Rectangle | None = None
    """Reference region of the scan: x0, y0, x1, y1; none: the positions that share the commonest
    strain-free lattice.
    """
    published_errors: Path | None = Field(None, exclude_if=lambda given: given is None)
    """Errors that others published of this truth, to be shown beside the run's: a CSV file as
    config/published/cc-st-ae.csv, relative to the folder of the run.
    """


AnyScene = Annotated[
    HeterostructureSettings
    | PolycrystalSettings
    | RotationSettings
    | RampSettings
    | RipplesSettings
    | UniformSettings
    | LabelledSettings,
    Field(discriminator="kind"),
]
