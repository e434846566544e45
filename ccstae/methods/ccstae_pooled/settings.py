"""What can be set of `ccstae-pooled`: the same as of `ccstae`."""

from __future__ import annotations

from ccstae.methods.ccstae.settings import CcstaeSettings

GOES_ON_FROM = "ccstae"
"""The method whose answer this one pools, so that a map that is there need not be made again."""


class CcstaePooledSettings(CcstaeSettings):
    """`ccstae` with neighbours: every pattern as there, then one field for the whole scan."""
