"""Settings of the methods, one model a method. `zero` has none."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ccstae.config.base import Settings


class MethodSettings(Settings):
    """What every method has."""

    device: Literal["auto", "cpu", "gpu"] | None = None
    """Overrides the run's `device` for this method."""


class ZeroSettings(MethodSettings):
    """No strain anywhere: the control that every method must beat."""

    silent: bool = False
    """Give no answer at all instead: a control of how failures are scored, which is as no strain.
    """


class ComSettings(MethodSettings):
    """Centre of mass of each disk in a round window that follows the fitted lattice."""

    window_radii: float = Field(1.4, ge=1, le=2.5)
    """Window radius over the disk radius."""
    iterations: int = Field(4, ge=1, le=50)
    """How often windows are placed anew on the fitted lattice."""
    background: Literal["none", "ring", "median", "radial"] = "radial"
    """What is subtracted before the centre of mass: nothing, the mean or the median of a 2 px ring
    round the window, or the mean between the disks at the same distance from the direct beam.
    """
    threshold: float = Field(0.0, ge=0, lt=1)
    """Pixels below this fraction of their window's maximum are set to zero."""
    weights: Literal["intensity", "information"] = "intensity"
    """Weights of the lattice fit: mass, or mass times that of its ring over the Poisson variance of
    the window's first moment.
    """
    reject_outliers: bool = False
    """Leave out disks beyond 3.5 robust standard deviations of the fit."""


class TemplateSettings(MethodSettings):
    """Cross-correlation with a probe template, as in py4DSTEM."""

    kernel: Literal["flat", "gaussian", "sigmoid"] = "sigmoid"
    """The trench round the probe: none, a Gaussian under it, or an annulus with soft edges."""
    trench_radii: float = Field(2.0, gt=1, le=6)
    """Outer radius of the trench over the disk radius."""
    smoothing_px: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the Gaussian that smooths the correlation."""
    correlation_power: float = Field(1.0, ge=0, le=1)
    """1 cross-correlation, 0 phase correlation, between them hybrid; below 1 without the direct
    beam.
    """
    subpixel: Literal["none", "parabolic", "dft"] = "dft"
    upsample: int = Field(4, ge=2, le=128)
    """Grid points per pixel of the upsampled DFT, between which a parabola finds the maximum: 16
    gives the same positions.
    """
    search: Literal["predicted", "free"] = "predicted"
    """Peaks near predicted sites, or the highest anywhere, indexed afterwards."""
    search_px: float = Field(4.0, gt=0.5, le=50)
    """Peaks count when they lie this close to the predicted site; half as much after each fit, down
    to 1.5 px.
    """
    most_peaks: int = Field(70, ge=4, le=1000)
    """How many peaks a free search keeps."""
    iterations: int = Field(2, ge=1, le=10)
    """Rounds of peaks and lattice fit; each predicts the sites of the next."""
    weights: Literal["intensity", "information", "none"] = "intensity"
    """Weights of the lattice fit: peak height, height times that of its ring over the Poisson
    variance of its slope, or none.
    """
    reject_outliers: bool = False
    """Leave out peaks beyond 3.5 robust standard deviations of the fit."""


class CepstralSettings(MethodSettings):
    """Peaks of the exit-wave power cepstrum, the Fourier transform of a pattern's logarithm."""

    offset_electrons: float = Field(0.1, gt=0, le=1e12)
    """Added to the counts of every pixel before the logarithm."""
    background: Literal["none", "radial"] = "radial"
    """What is taken off the logarithm: nothing, or the direct beam and the mean between the disks
    at the same distance from it.
    """
    longest: float = Field(2.1, ge=1, le=6)
    """Length of the longest lattice vectors looked at over that of the shortest."""
    upsample: int = Field(16, ge=4, le=128)
    """Grid points per width of a peak."""


class CcstaeSettings(MethodSettings):
    """The cycle-consistent spatial transforming autoencoder. What it needs beyond this it finds in
    the counts.
    """

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the encoder's training."""
    transformer: Literal["rigid", "affine"] = "rigid"
    """How patterns deform: disks move with the lattice and keep their shape, or the whole image is
    warped and the disks with it, as in the published model. The second is for comparison, and
    without the posterior mean.
    """
    without: tuple[
        Literal["encoder", "refinement", "posterior", "shape", "entries", "background"], ...
    ] = ()
    """Parts to leave out, for the ablation table: the encoder (refinement starts at the rough
    lattice), refinement (the encoder's answer stands), the posterior mean (the maximum stands), the
    learned shape of the disks (the vacuum probe's stays), more than one entry, or the background's
    cusp under the direct beam (it is flat there).
    """


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


# Values that `tune: true` tries, beside the defaults. Ours has none: one setting serves all levels.
TRIED: dict[str, dict[str, list[Any]]] = {
    "com": {
        "window_radii": [1.0, 1.2, 1.4, 1.7],
        "background": ["none", "ring", "median", "radial"],
        "threshold": [0.0, 0.1, 0.3],
        "weights": ["intensity", "information"],
        "reject_outliers": [False, True],
        "iterations": [2, 4, 8],
    },
    "template": {
        "kernel": ["flat", "gaussian", "sigmoid"],
        "trench_radii": [1.5, 2.0, 2.5, 3.0, 4.0],
        "smoothing_px": [0.0, 0.7, 1.5],
        "correlation_power": [0.8, 0.9, 1.0],
        "weights": ["none", "intensity", "information"],
        "search_px": [2.0, 4.0, 6.0],
        "reject_outliers": [False, True],
    },
    "cepstral": {
        "offset_electrons": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        "background": ["none", "radial"],
        "longest": [1.1, 1.8, 2.1, 2.7],
    },
}


SETTINGS: dict[str, type[MethodSettings]] = {
    "zero": ZeroSettings,
    "com": ComSettings,
    "template": TemplateSettings,
    "cepstral": CepstralSettings,
    "ccstae": CcstaeSettings,
    "ccstae-2023": Ccstae2023Settings,
    "ccstae-pooled": CcstaeSettings,
}
