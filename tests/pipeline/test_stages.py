"""Jobs get the settings they use, and depend on the files they are made from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from ccstae.config.run import Config, load, parse
from ccstae.pipeline import stages

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> Config:
    return load(ROOT / "config" / "default.yaml")


def names(paths: list[str]) -> set[str]:
    return {Path(path).resolve().relative_to(ROOT / "ccstae").as_posix() for path in paths}


@pytest.mark.parametrize(
    "given",
    [
        {"stage": "simulate", "scene": "heterostructure"},
        {"stage": "truth", "scene": "heterostructure"},
        {"stage": "noise", "scene": "heterostructure", "level": "clean", "seed": 2},
        {
            "stage": "map",
            "scene": "heterostructure",
            "level": "clean",
            "seed": 2,
            "method": "template",
        },
        {"stage": "score"},
    ],
    ids=lambda given: given["stage"],
)
def test_a_narrowed_config_is_a_config_on_one_line(
    config: Config, given: dict[str, object]
) -> None:
    narrowed = stages.narrow(config, **given)  # type: ignore[arg-type]
    line = stages.one_line(narrowed)
    assert "\n" not in line
    again = parse(yaml.safe_load(line))
    assert stages.one_line(again) == line
    assert again.microscope == config.microscope
    assert again.scenes == config.scenes


def test_a_job_gets_its_own_settings_alone(config: Config) -> None:
    simulated = stages.narrow(config, "simulate", scene="heterostructure")
    assert [level.name for level in simulated.levels] == ["clean"]
    assert list(simulated.methods) == ["zero"]
    mapped = stages.narrow(
        config, "map", scene="heterostructure", level="w0.00_n10000", seed=2, method="com"
    )
    assert [level.name for level in mapped.levels] == ["w0.00_n10000"]
    assert mapped.seeds.test == (2,)
    assert list(mapped.methods) == ["com"]
    assert "iterations: 4" in stages.one_line(mapped)  # defaults are watched as well
    assert stages.narrow(config, "truth", scene="heterostructure").levels == config.levels


def test_where_numbers_come_from_is_no_setting_of_the_simulation(config: Config) -> None:
    materials = {
        name: material.model_copy(update={"source": "elsewhere"})
        for name, material in config.materials.items()
    }
    other = config.model_copy(update={"materials": materials})
    assert stages.narrow(other, "simulate", scene="heterostructure") == stages.narrow(
        config, "simulate", scene="heterostructure"
    )
    assert stages.narrow(other, "report") != stages.narrow(config, "report")


def test_another_device_simulates_nothing_anew(config: Config) -> None:
    other = config.model_copy(update={"device": "cpu"})
    for stage in ("simulate", "truth"):
        assert stages.narrow(other, stage, scene="heterostructure") == stages.narrow(
            config, stage, scene="heterostructure"
        )


def test_no_stage_depends_on_a_later_one(config: Config) -> None:
    def rooms(stage: str, method: str | None = None) -> set[str]:
        return {Path(name).parts[0] for name in names(stages.sources(config, stage, method))}

    later = {"evaluation", "reporting", "gate", "commands", "cli.py"}
    assert not rooms("simulate") & (later | {"methods"})
    assert not rooms("noise") & (later | {"methods", "specimen"})
    for method in config.methods:
        assert not rooms("map", method) & (later | {"simulation", "specimen"})
    assert not rooms("score") & {"reporting", "gate", "methods", "commands", "cli.py"}
    assert not names(stages.sources(config, "simulate")) & {
        "simulation/truth.py",
        "simulation/bound.py",
        "simulation/noise.py",
    }


def test_a_method_depends_on_its_own_files(config: Config) -> None:
    com, template, zero = (
        names(stages.sources(config, "map", method)) for method in ("com", "template", "zero")
    )
    assert "methods/com/method.py" in com - template
    assert "methods/template/method.py" in template - com
    assert {"methods/zero.py", "methods/run.py", "io/counts.py"} <= zero
    assert not zero & {"methods/com/method.py", "methods/template/method.py"}


def test_the_simulator_depends_on_what_it_imports(config: Config) -> None:
    found = names(stages.sources(config, "simulate"))
    assert {
        "simulation/simulate.py",
        "simulation/optics.py",
        "geometry.py",
        "io/scene.py",
        "specimen/build.py",
        "specimen/heterostructure.py",
    } <= found
    plumbing = {"config", "cli.py", "machine/progress.py"}
    assert not plumbing & (found | {Path(name).parts[0] for name in found})


def test_the_report_depends_on_its_template(config: Config) -> None:
    assert "reporting/templates/report.html.j2" in names(stages.sources(config, "report"))


def test_a_program_from_outside_is_a_source_where_it_is_a_file(
    tmp_path: Path, config: Config
) -> None:
    program = tmp_path / "mine.py"
    program.write_text("")
    entry = config.methods["zero"].model_copy(update={"command": f"python {program}"})
    sources = stages.sources(config.model_copy(update={"methods": {"mine": entry}}), "map", "mine")
    assert str(program) in sources
    assert "python" not in sources


def test_a_row_depends_on_its_stages_and_on_no_others() -> None:
    made = parse(
        {
            "name": "made",
            "scenes": {"made": {"kind": "uniform", "materials": ["WS2"]}},
            "noise": {"dose": {"electrons": 1e5}},
            "methods": {
                "com": {},
                "before": {"method": "com", "denoise": {"kind": "gauss"}},
                "after": {"method": "com", "smooth": {"kind": "gauss"}},
                "program": {
                    "method": "com",
                    "denoise": {"kind": "program", "command": "python peers/run_quantem.py"},
                },
            },
        }
    )
    files = {row: set(stages.sources(made, "map", row)) for row in made.methods}
    blur = "ccstae/methods/neighbours/blur.py"
    assert not any("neighbours" in name for name in files["com"])
    assert {blur, blur.replace("blur", "denoise")} <= files["before"]
    assert blur.replace("blur", "smooth") not in files["before"]
    assert {blur, blur.replace("blur", "smooth")} <= files["after"]
    assert {"peers/run_quantem.py", "peers/adapter.py"} <= files["program"]


def test_a_digest_tells_what_files_hold_and_not_when(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("one.py", "two.py")]
    for file in files:
        Path(file).write_text("a = 1\n")
    told = stages.digest(files)
    for file in files:
        os.utime(file, (0, 0))
    stages._content.cache_clear()
    assert stages.digest(files) == told
    assert stages.digest(files[:1]) != told
    Path(files[1]).write_text("a = 2\n")
    stages._content.cache_clear()
    assert stages.digest(files) != told
