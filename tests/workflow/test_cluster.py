"""The workflow on other machines than the one that submits it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from checkout import SMALL_CONFIG, Checkout, copy

from ccstae.machine import device

# An executor whose jobs run elsewhere, as far as Snakemake knows. It says what each asks for.
PLUGIN = """
import asyncio
import subprocess

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    init_seconds_before_status_checks=0,
)


class Executor(RemoteExecutor):
    def run_job(self, job):
        print("asked:", job.name, job.threads, dict(job.resources.items()), flush=True)
        process = subprocess.Popen(self.format_job_exec(job), shell=True)
        self.report_job_submission(SubmittedJobInfo(job, aux={"process": process}))

    async def check_active_jobs(self, active_jobs):
        for job in active_jobs:
            code = job.aux["process"].poll()
            if code is None:
                yield job
            elif code:
                self.report_job_error(job)
            else:
                self.report_job_success(job)

    def cancel_jobs(self, active_jobs):
        for job in active_jobs:
            job.aux["process"].kill()
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = copy(tmp_path_factory.mktemp("cluster") / "checkout")
    plugin = made.path / "snakemake_executor_plugin_elsewhere"
    plugin.mkdir()
    (plugin / "__init__.py").write_text(PLUGIN)
    (made.path / "small.yaml").write_text(SMALL_CONFIG)
    for rules in (
        made.path / "workflow" / "rules"
    ).iterdir():  # a rule with a message tells no more
        rules.write_text(re.sub(r"    message:\n( +\".*\"\n)+", "", rules.read_text()))
    return made


def snakemake(checkout: Checkout, *words: str) -> str:
    """What Snakemake says, which is told of no number of cores."""
    search = os.pathsep.join([str(checkout.path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "small.yaml", *words],
        cwd=checkout.path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(checkout.path / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": search,
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_rule_says_what_it_needs(checkout: Checkout) -> None:
    said = snakemake(checkout, "--dry-run", "--executor", "elsewhere", "--jobs", "5")
    jobs = re.split(r"^(?:local)?rule (\w+):$", said, flags=re.MULTILINE)[1:]
    assert {"simulate", "truth", "noise", "map", "score", "provenance"} <= set(jobs[::2])
    for rule, job in zip(jobs[::2], jobs[1::2], strict=True):
        asked = re.search(r"^ +resources: (.*)$", job, re.MULTILINE)
        assert asked, rule
        if rule != "all":
            assert re.search(r"mem_mb=\d+", asked[1]), rule
            assert re.search(r"runtime=\d+", asked[1]), rule


def test_a_large_scan_is_mapped_in_blocks(checkout: Checkout) -> None:
    """1,024 positions, 300 to a block."""
    small = ("--configfile", "small.yaml")
    jobs = checkout.plan(*small, "--config", "chunk_positions=300")
    assert jobs == {**checkout.plan(*small), "map_block": 4}


def test_jobs_run_elsewhere_and_ask_for_the_gpu_of_the_config(checkout: Checkout) -> None:
    said = snakemake(
        checkout,
        *("--executor", "elsewhere", "--jobs", "5", "--config", "device=gpu", "--"),
        *("results/small/scenes/one.h5", "results/small/config.resolved.yaml"),
    )
    assert re.findall(r"^asked: (\w+)", said, re.MULTILINE) == ["simulate"]  # the other is local
    asked = re.search(r"^asked: simulate (\d+) (.*)$", said, re.MULTILINE)
    assert asked
    assert asked[1] == "16"
    assert "'gpu': 1" in asked[2]
    assert (checkout.path / "results/small/scenes/one.h5").exists()
    assert (checkout.path / "results/small/config.resolved.yaml").exists()


def test_a_gpu_is_asked_of_another_machine_by_the_config_alone() -> None:
    assert device.slots("gpu", here=False) == 1
    assert device.slots("auto", here=False) == device.slots("cpu", here=False) == 0
    assert device.slots("cpu", here=True) == 0


@pytest.mark.skipif(
    find_spec("snakemake_executor_plugin_slurm") is None,
    reason="needs the extra `slurm`: python envs/install.py envs/slurm.lock",
)
def test_the_profile_plans_a_run_on_slurm(checkout: Checkout) -> None:
    said = snakemake(checkout, "--dry-run", "--profile", "workflow/profiles/slurm")
    assert re.search(r"^rule map:", said, re.MULTILINE)
