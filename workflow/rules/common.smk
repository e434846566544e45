# The checked config, and what the jobs of each stage depend on.
import sys
from pathlib import Path

from ccstae.config.base import ID_PATTERN
import ccstae.config.run
from ccstae.errors import InputError
from ccstae.machine import device
from ccstae.methods import external
from ccstae.pipeline import stages
from ccstae.pipeline.claim import claim

try:
    RUN = ccstae.config.run.parse(config, ", ".join(str(path) for path in workflow.configfiles))
    SCORED = RUN.scored
    if (
        workflow.is_main_process
        and not workflow.output_settings.dryrun
        and "--lint" not in sys.argv
    ):
        CLAIM = claim(Path("results", RUN.name))  # held until Snakemake ends
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

CONFIG_LINE = stages.one_line(RUN)
LEVELS = {level.name: level for level in RUN.levels}


pathvars:
    results=f"results/{RUN.name}",
    logs=f"results/{RUN.name}/logs",
    benchmarks=f"results/{RUN.name}/benchmarks",


wildcard_constraints:
    scene=ID_PATTERN,
    level="clean|w[0-9.]+_n[0-9.e+]+",
    seed="[0-9]+",
    method=ID_PATTERN,


def settings(stage, *names):
    """The params function of a stage: its config narrowed by these wildcards, as one line."""

    def narrowed(wildcards):
        given = {
            name: int(wildcards[name]) if name == "seed" else wildcards[name] for name in names
        }
        return stages.one_line(stages.narrow(RUN, stage, **given))

    return narrowed


def folder(wildcards, output):
    """The params function of a stage that sees the whole run."""
    return str(Path(output[0]).parent)


def disposable(path):
    """A large product that only later jobs need: it goes after them, unless the config keeps it."""
    return path if RUN.keep_counts else temp(path)


def environment(wildcards):
    """Which Python a method from outside runs in, where it has one of its own."""
    name = RUN.methods[wildcards.method].environment
    return [str(external.interpreter(name))] if name else []


def throughput():
    """Speeds, where the config asks for them."""
    return ["<results>/throughput.csv"] if RUN.throughput else []


def truths():
    return expand("<results>/scenes/{scene}.truth.h5", scene=SCORED)


def scenes():
    return expand("<results>/scenes/{scene}.h5", scene=SCORED)


def maps():
    return expand(
        "<results>/maps/{scene}/{level}.{seed}/{method}.h5",
        scene=SCORED,
        level=LEVELS,
        seed=RUN.seeds.test,
        method=RUN.methods,
    )
