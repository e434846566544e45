"""Settings of the methods, one model a method. `zero` has none."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ccstae.settings.base import Settings


class MethodSettings(Settings):
    """What every method has."""

    device: Literal["auto", "cpu", "gpu"] | None = None
    """Overrides the run's `device` for this method."""


class ZeroSettings(MethodSettings):
    """No strain anywhere: the control that every method must beat."""


class ComSettings(MethodSettings):
    """Centre of mass of each disk in a round window."""

    window_radii: float = Field(1.4, gt=0.5, le=3)
    """Window radius over the disk radius."""
    iterations: int = Field(4, ge=1, le=50)
    background: Literal["none", "ring", "median"] = "ring"
    """What is subtracted before the centre of mass: nothing, the mean of a ring round the window, or the median pattern level."""
    threshold: float = Field(0.0, ge=0, lt=1)
    """Pixels below this fraction of the window's maximum are set to zero."""


class TemplateSettings(MethodSettings):
    """Cross-correlation with a probe template, as in py4DSTEM."""

    kernel: Literal["flat", "gaussian", "sigmoid"] = "sigmoid"
    correlation_power: float = Field(1.0, ge=0, le=1)
    """1 cross-correlation, 0 phase correlation, between them hybrid."""
    subpixel: Literal["none", "parabolic", "dft"] = "dft"
    upsample: int = Field(16, ge=1, le=128)
    search_px: float = Field(4.0, gt=0.5)
    """Peaks are sought this far from the predicted site."""
    weights: Literal["intensity", "information", "none"] = "intensity"
    reject_outliers: bool = True


class CcstaeSettings(MethodSettings):
    """The cycle-consistent spatial transforming autoencoder. Placeholder bounds; see ccstae/model."""

    seed: int = 0


SETTINGS: dict[str, type[MethodSettings]] = {
    "zero": ZeroSettings,
    "com": ComSettings,
    "template": TemplateSettings,
    "ccstae": CcstaeSettings,
}
