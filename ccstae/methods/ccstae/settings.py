"""What can be set of `ccstae`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ccstae.config.methods import MethodSettings


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
