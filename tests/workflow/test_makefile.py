"""The commands of the Makefile, as a shell would read them."""

import subprocess

import pytest
from checkout import ROOT

GIVEN = ["paper", "paper SIZE=16", "experiment SIZE=12", "run EXECUTOR=slurm", "run", "ci", "tune"]


@pytest.mark.parametrize("words", GIVEN)
def test_a_target_is_made_of_commands_that_a_shell_can_read(words: str) -> None:
    made = subprocess.run(
        ["make", "--dry-run", *words.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert made.stdout
    read = subprocess.run(["bash", "-n"], input=made.stdout, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
