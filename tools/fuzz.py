"""Drawn scans through each method: an answer of the right form, or one line why there is none.

    python tools/fuzz.py [--examples 500] [METHOD ...]

The scans are those of tests/methods/test_fuzz_methods.py, other ones each time. A scan on which a
method fails is made as small as it goes, and shown. Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import drawn
from hypothesis import HealthCheck, given, settings

from ccstae.config.methods import modules
from ccstae.io.counts import Counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=sorted(modules()))
    parser.add_argument("--examples", type=int, default=500)
    words = parser.parse_args()
    held = [holds(method, words.examples) for method in words.methods]
    sys.exit(not all(held))


def holds(method: str, examples: int) -> bool:
    """Whether a method answers or refuses each of so many scans; says how many, and shows a scan on
    which it fails.
    """
    answered, begun = [], time.monotonic()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn.scans())
    def each(counts: Counts) -> None:
        answered.append(drawn.answers(method, counts))

    error = None
    try:
        each()
    except Exception as raised:
        error = raised
        traceback.print_exc()
    print(
        f"{method}: {sum(answered)} answered, {len(answered) - sum(answered)} refused, "
        f"{'a failure' if error else 'no failure'}, {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return error is None


if __name__ == "__main__":
    main()
