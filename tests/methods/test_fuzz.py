"""Whatever passes the reader's door, a method answers it or says in one line why it cannot."""

from __future__ import annotations

import drawn
import pytest
from hypothesis import HealthCheck, given, settings

from ccstae.config.methods import settings_model
from ccstae.errors import InputError
from ccstae.io.counts import Counts
from ccstae.methods import base

EXAMPLES = {"zero": 20, "com": 20, "template": 20, "cepstral": 20, "ccstae": 5}


@pytest.mark.parametrize("method", EXAMPLES)
def test_a_method_answers_or_refuses(method: str) -> None:
    @settings(
        max_examples=EXAMPLES[method],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn.scans())
    def answers(counts: Counts) -> None:
        try:
            answer = base.load(method).map_strain(counts, settings_model(method)(), "cpu")
        except InputError as error:
            assert "\n" not in str(error)
            return
        base.check_answer(answer, counts.counts.shape[:2], method)

    answers()
