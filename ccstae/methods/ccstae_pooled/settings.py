"""What can be set of `ccstae-pooled`: the same as of `ccstae`."""

from __future__ import annotations

from ccstae.methods.ccstae.settings import CcstaeSettings as CcstaeSettings
