"""Whatever passes the reader's door, a method answers it or says in one line why it cannot."""

from __future__ import annotations

import drawn
import pytest
from hypothesis import HealthCheck, given, settings

from ccstae.io.counts import Counts

EXAMPLES = {"zero": 40, "com": 40, "template": 40, "cepstral": 40, "ccstae": 5}


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
    def holds(counts: Counts) -> None:
        drawn.answers(method, counts)

    holds()
