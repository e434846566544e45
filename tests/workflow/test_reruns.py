"""A run does again just what an edit touches."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT, Checkout, copy

CI = ("--configfile", "config/ci.yaml")
READ = {
    "tables": 1,
    "figures": 1,
    "report": 1,
    "provenance": 1,
}  # what people read, made anew with the scores
SCORED = {"score": 1, **READ}
SEEDS = 2  # of the three of config/ci.yaml: two tell one from all
DATA_SETS = 3 * SEEDS  # its levels and seeds
METHODS = 8
ON_MODEL = 3  # of them use the model
RULES = 21

# One worker runs them all: they share one finished run.
pytestmark = pytest.mark.xdist_group("reruns")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout after a run of config/ci.yaml with fewer seeds; only for plans."""
    checkout = copy(tmp_path_factory.mktemp("finished") / "checkout")
    checkout.edit("config/ci.yaml", replace("test: [1, 2, 3]", "test: [1, 2]"))
    done = checkout.snakemake("--configfile", "config/ci.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished checkout, times and records included, to edit."""
    shutil.copytree(finished.path, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")


def comment(text: str) -> str:
    return text + "\n# another comment\n"


def replace(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


EDITS = {
    "a figure": (
        "ccstae/reporting/figures/error.py",
        comment,
        {"figures": 1, "report": 1, "provenance": 1},
    ),
    "a table": ("ccstae/reporting/tables.py", comment, {"tables": 1, "report": 1, "provenance": 1}),
    "the report": (
        "ccstae/reporting/templates/report.html.j2",
        comment,
        {"report": 1, "provenance": 1},
    ),
    "a method": ("ccstae/methods/com/method.py", comment, {"map": DATA_SETS, **SCORED}),
    "the model": (
        "ccstae/methods/ccstae/refine.py",
        comment,
        {"map": ON_MODEL * DATA_SETS, **SCORED},
    ),
    "the bound": ("ccstae/simulation/bound.py", comment, {"truth": 1, **SCORED}),
    "the simulator": (
        "ccstae/simulation/simulate.py",
        comment,
        {"simulate": 1, "truth": 1, "noise": DATA_SETS, "map": METHODS * DATA_SETS, **SCORED},
    ),
    "how settings are written": ("ccstae/methods/com/settings.py", comment, {}),
    "a default": (
        "ccstae/methods/com/settings.py",
        replace("iterations: int = Field(4,", "iterations: int = Field(5,"),
        {"resolve": 1, "map": DATA_SETS, **SCORED},
    ),
    "a setting of a method": (
        "config/ci.yaml",
        replace("  com:", "  com: {settings: {iterations: 7}}"),
        {"resolve": 1, "map": DATA_SETS, **SCORED},
    ),
    "a new method": (
        "config/ci.yaml",
        replace("  zero:", "  zero:\n  none: {method: zero}"),
        {"resolve": 1, "map": DATA_SETS, **SCORED},
    ),
    "a new level": (
        "config/ci.yaml",
        replace("[0, 0.5]", "[0, 0.5, 0.7]"),
        {"resolve": 1, "truth": 1, "noise": SEEDS, "map": METHODS * SEEDS, **SCORED},
    ),
    "where a number comes from": (
        "ccstae/config/materials.yaml",
        replace("Schutte", "W. J. Schutte"),
        {"resolve": 1, **SCORED},
    ),
    "a number of a material": (
        "ccstae/config/materials.yaml",
        replace("a_A: 3.282", "a_A: 3.283"),
        {
            "resolve": 1,
            "simulate": 1,
            "truth": 1,
            "noise": DATA_SETS,
            "map": METHODS * DATA_SETS,
            **SCORED,
        },
    ),
    "a material of no scene": (
        "ccstae/config/materials.yaml",
        replace("a_A: 2.504", "a_A: 2.505"),
        {},
    ),
    "how a config is laid out": ("config/ci.yaml", comment, {}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns_just_what_it_touches(checkout: Checkout, edit: str) -> None:
    name, change, expected = EDITS[edit]
    checkout.edit(name, change)
    assert checkout.plan(*CI) == expected


def test_a_second_run_and_new_times_rerun_nothing(checkout: Checkout) -> None:
    assert checkout.plan(*CI) == {}
    for path in [
        *checkout.path.rglob("*.py"),
        *checkout.path.rglob("*.yaml"),
        *checkout.path.rglob("*.smk"),
    ]:
        path.touch()
    assert checkout.plan(*CI) == {}


def test_a_method_in_a_file_of_its_own_is_all_that_is_mapped(checkout: Checkout) -> None:
    methods = checkout.path / "ccstae" / "methods"
    shutil.copy(methods / "zero.py", methods / "naught.py")
    assert checkout.plan(*CI) == {}
    checkout.edit("config/ci.yaml", replace("  zero:", "  zero:\n  naught:"))
    assert checkout.plan(*CI) == {"resolve": 1, "map": DATA_SETS, **SCORED}


def test_a_map_that_is_gone_is_made_again(checkout: Checkout) -> None:
    next(checkout.path.glob("results/ci/maps/**/com.h5")).unlink()
    assert checkout.plan(*CI) == {"map": 1, **SCORED}


def test_the_run_is_exactly_the_given_file(finished: Checkout) -> None:
    small: dict[str, object] = {
        "name": "small",
        "noise": {"one": {"electrons": 100}},
        "seeds": {"test": [3]},
        "methods": {"zero": None},
    }
    material = {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153}
    small |= {
        "materials": {"A": material, "B": material},
        "scenes": {"one": {"kind": "heterostructure", "materials": ["A", "B"]}},
    }
    path = finished.path / "small.yaml"
    path.write_text(json.dumps(small))
    expected = {"resolve": 1, "simulate": 1, "truth": 1, "noise": 1, "map": 1, **SCORED}
    assert finished.plan("--configfile", str(path)) == expected


def test_a_tuned_method_is_tuned_on_a_field_and_seed_of_its_own(checkout: Checkout) -> None:
    field = "    materials: [WS2, WSe2]\n    scan: {shape: [6, 6], step_A: 50}\n"
    edit = [
        ("\nnoise:", f"\n  other:\n    kind: heterostructure\n    tune: true\n{field}\nnoise:"),
        ("tune: []", "tune: [101]"),
        ("  com:", "  com:\n  com-tuned: {method: com, tune: true}"),
    ]
    for old, new in edit:
        checkout.edit("config/ci.yaml", replace(old, new))
    of_it = {"simulate": 1, "truth": 1, "noise": 3, "tune": 3, "map": DATA_SETS}
    assert checkout.plan(*CI) == {"resolve": 1, **of_it, **SCORED}
    done = checkout.snakemake(*CI)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(checkout.path.glob("results/ci/maps/other*"))
    assert checkout.plan(*CI) == {}
    checkout.edit("ccstae/evaluation/tuning.py", comment)
    assert checkout.plan(*CI) == {"tune": 3, "map": DATA_SETS, **SCORED}


def test_either_snakefile_is_the_workflow(finished: Checkout) -> None:
    done = finished.dry_run("--snakefile", "workflow/Snakefile", *CI)
    assert "Nothing to be done" in done.stdout + done.stderr
    assert "profiles/default" in done.stderr


def test_without_a_config_the_main_job_runs(finished: Checkout) -> None:
    plan = finished.plan()
    assert plan == finished.plan("--configfile", "config/default.yaml")
    assert plan == finished.plan("--snakefile", "workflow/Snakefile")
    assert plan["map"] > DATA_SETS


def test_counts_go_after_use_unless_kept(checkout: Checkout) -> None:
    assert len(list(checkout.path.glob("results/ci/counts/heterostructure/*.h5"))) == DATA_SETS
    checkout.edit(
        "config/ci.yaml",
        lambda text: text.replace("name: ci", "name: gone").replace(
            "keep_counts: true", "keep_counts: false"
        ),
    )
    done = checkout.snakemake(*CI)
    assert done.returncode == 0, done.stderr
    assert not list(checkout.path.glob("results/gone/counts/**/*.h5"))
    assert not list(checkout.path.glob("results/gone/scenes/**/exact.h5"))
    assert len(list(checkout.path.glob("results/gone/maps/**/*.h5"))) == METHODS * DATA_SETS
    assert checkout.plan(*CI) == {}
    next(checkout.path.glob("results/gone/maps/**/com.h5")).unlink()
    assert checkout.plan(*CI) == {"noise": 1, "map": METHODS, **SCORED}  # the counts are new


def test_every_job_has_a_log_and_a_benchmark(finished: Checkout) -> None:
    jobs = 1 + 1 + 1 + DATA_SETS + METHODS * DATA_SETS + 5
    assert len(list(finished.path.glob("results/ci/benchmarks/**/*.tsv"))) == jobs
    rules = [
        rule
        for path in (ROOT / "workflow" / "rules").glob("*.smk")
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]
    ]
    assert len(rules) == RULES
    for directive in ("log", "benchmark", "conda", "threads", "resources", "message"):
        assert all(f"    {directive}:" in rule for rule in rules), directive


def refusal(checkout: Checkout, *words: str) -> str:
    """The one line that a plan ends with, by exit code 2."""
    done = checkout.dry_run(*CI, *words)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    return errors[0]


def test_a_bad_config_ends_with_one_line_and_code_2(checkout: Checkout) -> None:
    checkout.edit("config/ci.yaml", replace("detector_px", "detektor_px"))
    error = refusal(checkout)
    assert "config/ci.yaml" in error
    assert "detector_px" in error


def test_a_key_given_twice_is_refused(checkout: Checkout) -> None:
    """Snakemake's own reader takes the last."""
    checkout.edit("config/ci.yaml", replace("  zero:", "  zero:\n  zero:"))
    error = refusal(checkout)
    assert "config/ci.yaml" in error
    assert "'zero' is given twice" in error


def test_the_command_line_wins_over_the_config(finished: Checkout) -> None:
    plan = finished.plan(*CI, "--config", "name=other", "seeds={test: [7]}")
    assert plan["map"] == METHODS * DATA_SETS // SEEDS
    assert "seeds" in refusal(finished, "--config", "seeds={test: []}")


def test_without_the_package_one_line_says_what_to_install(checkout: Checkout) -> None:
    lacking = "No module named 'pydantic'"
    checkout.edit("ccstae/__init__.py", lambda text: f'raise ImportError("{lacking}")')
    for words in ((), ("--lint",)):
        error = refusal(checkout, *words)
        assert lacking in error
        assert "pip install" in error
