"""Methods on a GPU, as far as a CPU can tell: on the stand-in they mix no devices and give the
CPU's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from contract import SHORT_TRAINING
from stand_in_gpu import stand_in_gpu
from synthetic import Model, random_deformations

from ccstae.config.methods import settings as settings_of
from ccstae.methods import base
from ccstae.methods.base import Answer
from ccstae.methods.ccstae import encoder
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.trained import Trained

MODEL = Model(px=96)
COUNTS = MODEL.counts(random_deformations((3, 8)), 3e4, 0.25)
# The CPU's operations in batches of another size: what is left is rounding.
TOLERANCE = 1e-5
# Of one batch, whatever its size: locating, encoding, two climbs, posterior and answer.
MAX_OPERATIONS = 8000
MAX_WAITS = 200


def test_the_stand_in_refuses_what_a_gpu_refuses() -> None:
    with stand_in_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == there.new_zeros(2).device.type == "cuda"
        assert torch.equal((there + here.to(there)).cpu(), 2 * here)
        assert float(there.sum() + 1.0) == 4.0
        refused: list[Callable[[], object]] = [
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: there @ torch.eye(3),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: np.asarray(there),
            lambda: np.zeros(3)[there.long()],
        ]
        for attempt in refused:
            with pytest.raises((RuntimeError, TypeError), match=r"same device|numpy"):
                attempt()


def both(method: str, **settings: Any) -> tuple[Answer, Answer]:
    """The answers of a method on the CPU and on the stand-in."""
    module, chosen = base.load(method), settings_of(method)(**settings)
    on_cpu = module.map_strain(COUNTS, chosen, "cpu")
    with stand_in_gpu():
        return on_cpu, module.map_strain(COUNTS, chosen, "cuda")


def assert_same(on_cpu: Answer, on_gpu: Answer) -> None:
    assert np.isfinite(on_cpu.F).any()
    for name in ("F", "covariance", "centre_px", "label"):
        expected, found = getattr(on_cpu, name), getattr(on_gpu, name)
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=TOLERANCE)


@pytest.mark.parametrize("method", ["com", "template", "cepstral"])
def test_a_method_gives_the_numbers_of_the_cpu(method: str) -> None:
    assert_same(*both(method))


def test_the_published_method_gives_the_numbers_of_the_cpu() -> None:
    assert_same(*both("ccstae-2023", **{**SHORT_TRAINING, "epochs": [1, 1], "batch": [12, 12]}))


@pytest.fixture(scope="module")
def learned() -> tuple[Trained, Trained]:
    """What `ccstae` learns on the CPU and on the stand-in, its encoder from a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "_STEPS", 5)
        on_cpu = ccstae.learn(COUNTS, CcstaeSettings(), "cpu")
        with stand_in_gpu():
            on_gpu = ccstae.learn(COUNTS, CcstaeSettings(), "cuda")
    assert on_cpu is not None
    assert on_gpu is not None
    return on_cpu, on_gpu


@pytest.mark.parametrize("method", ["ccstae", "ccstae-pooled"])
def test_what_learns_gives_the_numbers_of_the_cpu(
    method: str, learned: tuple[Trained, Trained]
) -> None:
    apply = base.load(method).apply
    on_cpu = apply(learned[0], COUNTS, "cpu")
    with stand_in_gpu():
        on_gpu = apply(learned[1], COUNTS, "cuda")
    assert_same(on_cpu, on_gpu)


def test_launches_and_waits_do_not_grow_with_the_patterns(learned: tuple[Trained, Trained]) -> None:
    """On a GPU a batch takes as long as its operations are many, however small."""
    twice = replace(COUNTS, counts=np.concatenate([COUNTS.counts, COUNTS.counts]))
    ran = []
    for counts in (COUNTS, twice):
        with stand_in_gpu() as now:
            ccstae.apply(learned[1], counts, "cuda")
        ran.append(now)
    operations = [sum(now.operations.values()) for now in ran]
    waits = [sum(now.waits.values()) for now in ran]
    assert operations[1] < min(1.05 * operations[0], MAX_OPERATIONS)
    assert waits[1] < min(1.1 * waits[0], MAX_WAITS)
