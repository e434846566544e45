"""A run that is killed, doubled or met by a clock that jumps."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from checkout import SMALL_CONFIG, Checkout, copy

from ccstae.machine import host

RUN = ("--configfile", "small.yaml")

pytestmark = pytest.mark.xdist_group("faults")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = copy(tmp_path / "checkout")
    (made.path / "small.yaml").write_text(SMALL_CONFIG)
    return made


def slow(checkout: Checkout) -> None:
    """From here on, drawing noise takes long."""
    checkout.edit(
        "bin/ccstae",
        lambda text: text.replace(
            "cat > /dev/null",
            'case "$*" in *" noise "*) touch noise-began; sleep 300 ;; esac; cat > /dev/null',
        ),
    )


def fast(checkout: Checkout) -> None:
    checkout.edit("bin/ccstae", lambda text: text.replace("sleep 300", "true"))


def started(checkout: Checkout) -> subprocess.Popen[str]:
    """A run on its way, in the middle of the noise."""
    process = checkout.start(*RUN)
    for _ in range(3000):  # a run beside the whole suite starts slowly
        if (checkout.path / "noise-began").exists():
            time.sleep(0.5)
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the run did not get to the noise")


def test_after_a_kill_the_next_run_finishes_by_itself(checkout: Checkout) -> None:
    slow(checkout)
    process = started(checkout)
    folder = checkout.path / "results/small/counts/one"
    left = folder / f".w0.00_n100.3.h5.{host.NAME}.999999999.partial"
    elsewhere = folder / ".w0.00_n100.3.h5.another-host.999999999.partial"
    folder.mkdir(parents=True, exist_ok=True)
    left.write_text("half")
    elsewhere.write_text("of a job that may still run")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list((checkout.path / ".snakemake/locks").iterdir()), (
        "Snakemake left no lock: the test shows nothing"
    )
    fast(checkout)
    done = checkout.snakemake(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.path / "results/small/report.html").exists()
    assert list(checkout.path.rglob("*.partial")) == [elsewhere]
    assert checkout.plan(*RUN) == {}


def test_an_interrupted_run_says_so_and_the_next_goes_on(checkout: Checkout) -> None:
    slow(checkout)
    process = started(checkout)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, stderr = process.communicate()
    assert process.returncode != 0
    last = "interrupted: the same command again goes on from what is finished"
    assert stderr.count(last) == 1
    assert stderr.splitlines()[-1] == last
    fast(checkout)
    done = checkout.snakemake(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.path / "results/small/report.html").exists()


def test_a_second_run_at_once_is_told_so_in_one_line(checkout: Checkout) -> None:
    slow(checkout)
    process = started(checkout)
    try:
        second = checkout.snakemake(*RUN)
        assert second.returncode == 2
        errors = [line for line in second.stderr.splitlines() if line.startswith("error:")]
        assert errors == [
            "error: results/small: another run is writing there; wait for its end, or give this "
            "one another name"
        ]
        assert checkout.plan(*RUN)["report"] == 1  # looking is free
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_clock_that_jumps_back_costs_jobs_and_nothing_else(checkout: Checkout) -> None:
    """Half a run made under a clock a day ahead: what is older than its inputs is made again, and
    then all is well.
    """
    done = checkout.snakemake(*RUN, "--until", "noise")
    assert done.returncode == 0, done.stdout + done.stderr
    ahead = time.time() + 86400
    for path in checkout.path.glob("results/small/**/*.h5"):
        os.utime(path, (ahead, ahead))
    done = checkout.snakemake(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.path / "results/small/report.html").exists()


def test_a_clock_that_jumps_ahead_costs_nothing(checkout: Checkout) -> None:
    """Half a run made under a clock a day behind: the rest follows, and then all is done."""
    done = checkout.snakemake(*RUN, "--until", "noise")
    assert done.returncode == 0, done.stdout + done.stderr
    for path in checkout.path.glob("results/small/**/*.h5"):
        made = path.stat().st_mtime - 86400
        os.utime(path, (made, made))
    done = checkout.snakemake(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkout.plan(*RUN) == {}
