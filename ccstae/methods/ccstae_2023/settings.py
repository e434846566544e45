"""What can be set of `ccstae-2023`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ccstae.config.methods import MethodSettings

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Ccstae2023Settings(MethodSettings):
    """The CC-ST-AE as published in 2023, trained in two stages: on a ring, then on its spots.
    Defaults are the published constants.
    """

    seed: int = Field(0, ge=0)
    """Seed of the weights and of the order of patterns."""
    entries: int = Field(1, ge=1, le=16)
    """Pictures in the dictionary."""
    channels: int = Field(128, ge=1, le=1024)
    """Of every convolution."""
    pools: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        (5, 4, 2), min_length=1, max_length=6
    )
    """Factors of the encoder's poolings, from the detector inwards; the decoder upsamples by the
    same.
    """
    binning: int = Field(1, ge=1, le=16)
    """Detector pixels along a side of an input pixel of the encoder."""
    vector: int = Field(20, ge=1, le=1000)
    """Length of the vector between the encoder and the heads."""
    brightest: float = Field(3.0, gt=0)
    """The encoder's input is cut here, in units of the spots' mean brightness: the direct beam must
    not drown the rest.
    """
    scale_limit: float = Field(0.05, gt=0, lt=0.5)
    """Largest change of either scale."""
    shear_limit: float = Field(0.1, gt=0, lt=0.5)
    rotation_limit_rad: float = Field(0.1, gt=0, lt=1)
    """Largest change of the first stage's angle in the second."""
    translation_limit: float = Field(0.0, ge=0, lt=1)
    """Largest shift of the centre over half the pattern's side; 0.15 as published for beam
    centring, 0 where the direct beam gives it.
    """
    scale_free: float = Field(0.03, ge=0)
    """Changes of scale are punished beyond this."""
    scale_weight: float = Field(10.0, ge=0)
    shear_free: float = Field(0.03, ge=0)
    """Shears are punished beyond this."""
    shear_weight: float = Field(1.0, ge=0)
    sparsity: float = Field(1e-6, ge=0)
    """Weight of the sum of the pictures' absolute values."""
    orientation_weight: float = Field(100.0, ge=0)
    """Weight of the squared distance to the rough orientation, in the first stage."""
    gauge_weight: float = Field(100.0, ge=0)
    """Weight of the patterns' mean stretch squared: the masks stand at the scan's mean lattice, and
    the dictionary is to stay there.
    """
    spot_radii: float = Field(1.6, gt=1, le=4)
    """Radius of the spots' masks over the disk radius."""
    upsample: int = Field(4, ge=1, le=8)
    """Samples per pixel along a side of the spots' masks."""
    mass_threshold: float = Field(1.5, ge=0)
    """A spot's centre of mass takes what exceeds this many times the mean of its mask."""
    epochs: tuple[Count, Count] = (20, 20)
    """Passes over the scan in the first and the second stage."""
    batch: tuple[Count, Count] = (4, 64)
    """Patterns in a step of either stage."""
    learning_rate: tuple[Rate, Rate] = (3e-5, 3e-4)
    """Of Adam at the start of either stage; it falls to none at the end."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
