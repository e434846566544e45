"""Settings of recorded scans: where a detector's file is, and what `ccstae import` and `ccstae
calibrate` are told of it. Each setting has the name of an option there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ccstae.config.base import Settings

# Of a file on the web, which keeps it here.
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"


class ImportSettings(Settings):
    """What the detector's file does not say of itself."""

    dataset: str | None = None
    """Of several in the file: an HDF5 path, or a title."""
    axes: str | None = None
    """The file's axes in its order, such as `Ry Rx Qy Qx`."""
    scan: str | None = None
    """Recorded positions, rows and columns, such as `256x256`, where the file does not say."""
    skip: int = Field(0, ge=0)
    """Columns at the end of each row, where the beam flies back."""
    crop: str | None = None
    """Parts to keep, such as `Ry=0:100 Qx=10:118`."""
    bin: int = Field(1, ge=1)
    """Pixels that are summed, either way."""
    electrons_per_unit: float | None = Field(None, gt=0)
    """Of the file; found from the scan where left out."""
    pedestal: float | None = None
    """What a pixel reads without electrons, in units of the file; found where left out."""


class CalibrationSettings(Settings):
    """What the scan need not tell of itself."""

    material: str | None = None
    """The specimen: one of the package's materials."""
    lattice: str | None = None
    """The specimen: `a,b,gamma` in Angstrom and degrees."""
    rings: tuple[Path, str] | None = None
    """A file of the rings of a powder of a face-centred cubic metal, and its lattice parameter in
    Angstrom, such as `a=4.078`.
    """
    probe: Path | None = None
    """A file of the probe in vacuum."""
    energy_keV: float | None = Field(None, gt=0)
    semiangle_mrad: float | None = Field(None, gt=0)
    """Convergence semiangle."""
    pixel_size_inv_A: float | None = Field(None, gt=0)
    step_A: float | None = Field(None, gt=0)
    """Of the scan."""
    scan_rotation_deg: float | None = Field(None, ge=-360, le=360)
    """From the detector's x axis to the scan's, positive from x towards y."""

    @model_validator(mode="after")
    def _one_specimen(self) -> Self:
        if self.material is not None and self.lattice is not None:
            raise ValueError("give material or lattice, not both")
        return self


class RecordedScan(ImportSettings, CalibrationSettings):
    """A scan that was recorded, in the file that the detector wrote."""

    path: Path | None = None
    """Of the file, relative to the folder of the run (the project's root)."""
    url: Annotated[str, Field(pattern=rf"^https://[^?#]*/{_NAME}([?].*)?$")] | None = None
    """Of the file, which needs its sha256. Downloaded once and kept under results/.cache. Not where
    a file of this name, or of its sha256, lies in the folder that the environment variable
    CCSTAE_CACHE names.
    """
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Sum that the file must have."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give exactly one of path and url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of its file")
        return self

    @property
    def name(self) -> str:
        """Of the file."""
        return Path((self.url or str(self.path)).split("?")[0]).name

    @property
    def import_options(self) -> list[str]:
        """Words of the command line for `ccstae import`; of a file here its sum among them."""
        words = _options(self, ImportSettings)
        return words if self.path is None or not self.sha256 else [*words, "--sha256", self.sha256]

    @property
    def calibration_options(self) -> list[str]:
        """Words of the command line for `ccstae calibrate`."""
        return _options(self, CalibrationSettings)


def _options(scan: RecordedScan, of: type[Settings]) -> list[str]:
    """Settings as options of the command line, those left out left out."""
    words: list[str] = []
    for name, field in of.model_fields.items():
        value = getattr(scan, name)
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
