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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=sorted(modules()))
    parser.add_argument("--examples", type=int, default=500)
    given_words = parser.parse_args()
    failed = False
    for method in given_words.methods:
        tried = {"answered": 0, "refused": 0}

        @settings(
            max_examples=given_words.examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(drawn.scans())
        def holds(counts, method=method, tried=tried):
            tried["answered" if drawn.answers(method, counts) else "refused"] += 1

        begun = time.monotonic()
        try:
            holds()
        except Exception:
            traceback.print_exc()
            failed = True
        print(
            f"{method}: {tried['answered']} answered, {tried['refused']} refused, "
            f"{time.monotonic() - begun:.0f} s",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
