"""The one exception that means "the user can mend this": what is wrong, where, and what was
expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input. The command line prints it as one line and exits with code 2."""


def unknown(what: str, value: str, known: Iterable[str]) -> str:
    """Message for an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "expected one of " + ", ".join(names)
    return f"unknown {what} {value!r}; {hint}"
