"""Begin a method: a module that answers no strain yet, and a test that passes, to go on from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from ccstae.config.methods import modules
from ccstae.errors import InputError
from ccstae.io.atomic import write_text

_PROJECT = Path(__file__).parents[2]
_NAME = re.compile(r"[a-z][a-z0-9_-]*")

_METHOD = '''"""{name}: how it finds the lattice, and when it gives up."""

from __future__ import annotations

import numpy as np

from ccstae.config.methods import MethodSettings
from ccstae.io.counts import Counts
from ccstae.methods.base import Answer


class {model}(MethodSettings):
    """One line that `ccstae methods` prints."""

    # A setting is `window_px: float = Field(8.0, gt=0)` and a docstring, with pydantic's Field.


def map_strain(counts: Counts, settings: {model}, device: str) -> Answer:
    """F of every pattern: a vector g0 of the nominal lattice is seen at F^-T g0.

    CONTRIBUTING.md, "A method", goes through an example. `Counts` (ccstae/io/counts.py) is what
    comes in, `Answer` (ccstae/methods/base.py) is what goes out.
    """
    F = np.broadcast_to(np.eye(2), (*counts.scan, 2, 2)).copy()  # no strain, for now
    return Answer(F)
'''

_TEST = '''"""{name}: the contract of a method (ccstae/evaluation/method_contract.py)."""

from __future__ import annotations

from ccstae.evaluation.method_contract import FORM, Tolerance, failures, package_method


def test_the_contract_is_kept() -> None:
    # Once it measures strain, leave out `only`, and lower the tolerance to what it reaches.
    tolerance = Tolerance(strain=10e-4, over_bound=3.0)
    assert failures(package_method("{name}"), tolerance, only=FORM) == []
'''


def write(name: str, project: Path = _PROJECT) -> list[str]:
    """Write `ccstae/methods/NAME.py` and `tests/methods/test_NAME.py`, with `_` for `-`.

    Args:
        name: the method's id, of small letters, digits and -; a _ is read as -.
        project: the root of a checkout.

    Returns:
        Lines that say what was written and what to do next.

    Raises:
        InputError: for a name that cannot be a module's or is taken, and for a package that lies in
            no checkout.
    """
    name, stem = name.replace("_", "-"), name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(stem):
        raise InputError(
            f"{name!r} cannot name a method; expected small letters, digits, - and _, beginning "
            f"with a letter, and no word of Python"
        )
    folder, tests = project / "ccstae" / "methods", project / "tests" / "methods"
    if not tests.is_dir():
        raise InputError(
            f"{project} is no checkout of this project: it has no tests/methods; clone the "
            f"project, run `make setup` and use the `ccstae` of its .venv"
        )
    method, test = folder / f"{stem}.py", tests / f"test_{stem}.py"
    taken = [path for path in (method, method.with_suffix(""), test) if path.exists()]
    if taken or name in modules():
        what = f"there is {taken[0].relative_to(project)}" if taken else "such a method exists"
        raise InputError(f"{name!r} is taken: {what}; expected a new name")
    model = "".join(part.capitalize() for part in stem.split("_")) + "Settings"
    write_text(method, _METHOD.format(name=name, model=model))
    write_text(test, _TEST.format(name=name))
    return [
        f"wrote {method.relative_to(project)}: it answers no strain",
        f"wrote {test.relative_to(project)}: it holds the method to the contract",
        f"next: edit {method.name}, then run `ccstae check-method {name}` and "
        f"`pytest {test.relative_to(project)}`; a config runs it as `methods: {{{name}: }}`",
    ]
