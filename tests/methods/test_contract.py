"""The contract that all methods keep, and what it sees of one that does not."""

from __future__ import annotations

from pathlib import Path

import contract
import numpy as np
import pytest
from programs import python

from ccstae.config.methods import modules
from ccstae.evaluation import method_contract
from ccstae.evaluation.method_contract import (
    FORM,
    STRAIN,
    Tolerance,
    failures,
    package_method,
    program,
)
from ccstae.io.counts import Counts
from ccstae.methods import base

# One worker runs these: what a method learns in one, the others use.
LEARNS = pytest.mark.xdist_group("contract")


@LEARNS
@pytest.mark.parametrize("method", sorted(modules()))
def test_every_method_keeps_the_contract(method: str) -> None:
    tolerance = method_contract.TOLERANCES.get(method, method_contract.DEFAULT_TOLERANCE)
    assert failures(contract.mapper(method), tolerance, contract.only(method)) == []


@LEARNS
def test_learning_anew_gives_the_same_bytes() -> None:
    """The contract above shares what `ccstae` learned from the clean scan first."""
    _, scan = method_contract.clean_scan()
    shared, _ = contract.mapper("ccstae")(scan)
    anew, _ = package_method("ccstae")(scan)
    for field in ("F", "covariance", "label", "centre_px", "dictionary"):
        assert getattr(shared, field).tobytes() == getattr(anew, field).tobytes(), field


# `com` as a program from outside.
COM = """
import argparse
from ccstae.io.counts import read_counts
from ccstae.io.maps import Map, write_map
from ccstae.methods.com import method, settings
parser = argparse.ArgumentParser()
for name in ("--counts", "--map", "--settings"):
    parser.add_argument(name)
given = parser.parse_args()
counts = read_counts(given.counts)
chosen = settings.ComSettings.model_validate_json(given.settings)
write_map(given.map, Map(method.map_strain(counts, chosen, "cpu").F, {}))
"""


def test_a_program_from_outside_can_keep_the_contract(tmp_path: Path) -> None:
    map_scan = program(python(COM, tmp_path), {"window_radii": 1.4})
    checks = ("inputs left alone", "clean patterns", "vacuum", "any orientation")
    assert failures(map_scan, method_contract.TOLERANCES["com"], checks) == []


def test_the_example_of_the_documentation_is_a_method(tmp_path: Path) -> None:
    """It is exact on clean patterns; docs/peers.md says which checks it fails."""
    text = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 35
    checks = list(method_contract.check(program(python(code, tmp_path)), Tolerance(1e-4)))
    assert [check.name for check in checks if not check.passed] == ["vacuum", "any orientation"]
    for check in checks:
        assert f"{'pass' if check.passed else 'FAIL'}  {check.name}: " in text


class Spoiled:
    """What a method must not do, one at a time, on top of `com`."""

    def __init__(self, spoil: str) -> None:
        self.spoil, self.calls, self.com = spoil, 0, package_method("com")

    def __call__(self, counts: Counts) -> tuple[base.Answer, Counts]:
        answer, left = self.com(counts)
        self.calls += 1
        F, spoil = answer.F.copy(), self.spoil
        if spoil == "inputs left alone":
            left.counts[0, 0, 0, 0] += 1
        if spoil == "same bytes twice":
            F[0, 0, 0, 0] += 1e-9 * self.calls
        if spoil == "vacuum":
            F[np.isnan(F)] = 0.5
        if spoil == "any orientation" and len(F) == 8:
            F[-1, -1] = np.nan
        if spoil == "clean patterns":
            F[0, 0] *= 1.001
        if spoil == "shapes and kinds":
            base.check_answer(base.Answer(F[0]), F.shape[:2], "spoiled")
        return base.Answer(F), left


@pytest.mark.parametrize(
    ("spoil", "failed"),
    [
        ("inputs left alone", {"inputs left alone"}),
        ("same bytes twice", {"same bytes twice"}),
        ("vacuum", {"vacuum"}),
        ("any orientation", {"any orientation"}),
        (
            "clean patterns",
            {"clean patterns", "beam off the nominal centre", "detector not square"},
        ),
        ("shapes and kinds", {*FORM, *STRAIN}),
    ],
)
def test_the_contract_sees_what_a_method_must_not_do(spoil: str, failed: set[str]) -> None:
    checks = method_contract.check(Spoiled(spoil), method_contract.TOLERANCES["com"])
    assert {check.name for check in checks if not check.passed} == failed
