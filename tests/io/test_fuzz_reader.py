"""The reader's door: whatever a counts file holds, it is read or refused, at once and in little
memory.
"""

from __future__ import annotations

import resource
import time
import warnings
from pathlib import Path

import drawn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccstae.errors import InputError
from ccstae.io import missing, slips
from ccstae.io.counts import Counts, read_counts

EXAMPLES = 500
MAX_SECONDS = 5.0  # an example; a busy machine takes hundredths
MAX_GROWTH_KIB = 2**20


def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("drawn") / "counts.h5"
    read: list[bool] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        file: Path = data.draw(drawn.files(path))
        said = ""
        begun = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                counts = read_counts(file)
        except InputError as error:
            counts, said = None, str(error)
        assert time.monotonic() - begun < MAX_SECONDS
        read.append(counts is not None)
        if counts is None:
            assert said.startswith(str(path))
            assert "\n" not in said
        else:
            assert isinstance(counts, Counts)
            assert counts.probe.shape == counts.counts.shape[2:]
            assert slips.fault(counts.calibration, counts.probe.shape) is None
            assert np.isfinite(counts.probe).all()
            assert counts.probe.sum() == pytest.approx(1, abs=1e-3)
            assert counts.good.shape == counts.probe.shape
            assert counts.good.mean() >= missing.MIN_GOOD_SHARE
            assert np.isfinite(counts.counts).all()
            assert not counts.counts[..., ~counts.good].any()
            assert bool(counts.bad_pixels) or counts.good.all()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    holds()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB
    assert 0.05 < np.mean(read) < 0.95  # both happen
