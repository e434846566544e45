# The checked config, and what the jobs of each stage depend on.
import atexit
import math
import signal
import sys
from functools import cache
from pathlib import Path

try:
    import ccstae.config.run
    from ccstae.config.base import ID_PATTERN
    from ccstae.errors import InputError
    from ccstae.io import layout
    from ccstae.machine import device
    from ccstae.pipeline import stages
    from ccstae.pipeline.claim import claim
except ImportError as error:
    print(
        f"error: {error}; expected the package ccstae beside Snakemake: run `make setup`, or"
        " `pip install .` at the root of the checkout",
        file=sys.stderr,
    )
    sys.exit(2)

# The package reads the config: Snakemake would take the last of a key that is given twice.
try:
    RUN = ccstae.config.run.from_snakemake(
        workflow.configfiles or [Path(workflow.current_basedir).parents[1] / "config/default.yaml"],
        workflow.config_settings.config,
    )
    SCORED = RUN.scored
    RUN_DIR = Path("results", RUN.name)
    if (
        workflow.is_main_process
        and not workflow.output_settings.dryrun
        and "--lint" not in sys.argv
    ):
        CLAIM = claim(RUN_DIR)  # held until Snakemake ends
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def say_interrupted():
    print("interrupted: the same command again goes on from what is finished", file=sys.stderr)


def interrupt(signum, frame):
    """Ctrl-C, which jobs report as their own failure: the last line says what it was."""
    atexit.unregister(say_interrupted)  # pressed twice
    atexit.register(say_interrupted)
    signal.default_int_handler(signum, frame)


signal.signal(signal.SIGINT, interrupt)

# Whether jobs run on this machine. Its executor is not known yet while Snakemake reads the rules,
# but only others, such as Slurm's, have a number of jobs at a time beside the cores.
HERE = workflow.resource_settings.nodes is None
GPU = device.slots(RUN.device, HERE)

CONFIG_LINE = stages.one_line(RUN)
LEVELS = {level.name: level for level in RUN.levels}


pathvars:
    results=str(RUN_DIR),
    logs=str(RUN_DIR / layout.LOGS),
    benchmarks=str(RUN_DIR / layout.BENCHMARKS),


wildcard_constraints:
    scene=ID_PATTERN,
    level="clean|w[0-9.]+_n[0-9.e+]+",
    seed="[0-9]+",
    method=ID_PATTERN,
    scan=ID_PATTERN,
    file="[^/]+",
    block="[0-9]+",
    blocks="[0-9]+",


def settings(stage, *names):
    """The params function of a stage: its config narrowed by these wildcards, as one line."""

    @cache
    def line(*values):
        return stages.one_line(stages.narrow(RUN, stage, **dict(zip(names, values))))

    def narrowed(wildcards):
        return line(
            *(int(wildcards[name]) if name == "seed" else wildcards[name] for name in names)
        )

    return narrowed


def code(stage):
    """The params function of a stage: a digest of its source files. As inputs, every second
    Snakemake would ask the disk for all of them.

    A function, as a job's own Snakemake should look for those of its stage alone.
    """

    @cache
    def digest(method):
        return stages.digest(stages.sources(RUN, stage, method))

    def of_job(wildcards):
        return digest(wildcards.method if stage in ("map", "tune", "precision") else None)

    return of_job


def folder(wildcards, input):
    """The params function of a stage that finds its inputs by the layout of the run: the run's
    folder, or where Snakemake has put those of its files that are inputs of the job. A run of
    recorded scans alone has no maps to score, so its score has no such inputs."""
    below = f"{RUN_DIR}/"
    path = next((path for path in map(str, input) if below in path), below)
    return path[: path.index(below)] + str(RUN_DIR)


def disposable(path):
    """A large product that only later jobs need: it goes after them, unless the config keeps it."""
    return path if RUN.keep_counts else temp(path)


def tuned(wildcards):
    """What a search chose for a method at a noise level, where its settings are searched."""
    return f"<results>/{layout.TUNED}" if RUN.methods[wildcards.method].tune else []


def given(wildcards, input):
    """What a method gets beside counts and config."""
    options = (("--tuned", input.tuned), ("--from-map", input.from_map))
    return [word for option, path in options if path for word in (option, str(path))]


CONTROLS = [row for row in RUN.methods if RUN.control(row)]


def either(rows):
    """A pattern of wildcards for some rows of the config alone; for none where there are none."""
    return "|".join(rows) or "(?!)"


def environment(wildcards):
    """Which Python the programs of a method from outside run in, where they have one of their
    own."""
    entry = RUN.methods[wildcards.method]
    names = [
        name for name in (entry.environment, getattr(entry.denoise, "environment", None)) if name
    ]
    if not names:
        return []
    from ccstae.methods import external  # which takes a second

    return [local(str(external.interpreter(name))) for name in names]


def from_map(wildcards):
    """The map that a method goes on from, where another row of the config makes it."""
    row = RUN.goes_on_from(wildcards.method)
    return f"<results>/{layout.MAP}".replace("{method}", row) if row else []


def from_scan_map(wildcards):
    """The same for the map of a recorded scan."""
    row = RUN.goes_on_from(wildcards.method)
    return f"<results>/{layout.SCAN_MAP}".replace("{method}", row) if row else []


def from_maps_tuning(wildcards):
    """The same for every map that a search looks at."""
    row = RUN.goes_on_from(wildcards.method)
    if not row:
        return []
    return expand(
        f"<results>/{layout.MAP}",
        scene=RUN.tuning,
        level=wildcards.level,
        seed=RUN.seeds.tune,
        method=row,
    )


def blocks(wildcards):
    """What the jobs leave that map a large scan block by block, before its map is put together."""
    positions = math.prod(RUN.scenes[wildcards.scene].scan.shape)
    number = math.ceil(positions / RUN.chunk_positions)
    alone = RUN.methods[wildcards.method].by_blocks and not RUN.goes_on_from(wildcards.method)
    if number == 1 or not alone:
        return []
    return expand(
        f"<results>/{layout.BLOCK}",
        block=range(1, number + 1),
        blocks=number,
        allow_missing=True,
    )


def throughput():
    """Speeds, where the config asks for them."""
    return [f"<results>/{layout.THROUGHPUT}"] if RUN.throughput else []


def published():
    """Errors as the published work counts them, where a scene has published errors."""
    if not any(getattr(scene, "published_errors", None) for scene in SCORED.values()):
        return []
    return [f"<results>/{layout.PUBLISHED}"]


def structures():
    """Scores of the structures that two claims are about, where config/structures.yaml has run."""
    path = RUN_DIR.with_name("structures") / layout.METRICS
    return [str(path)] if published() and path.is_file() else []


def scenes():
    return expand(f"<results>/{layout.SCENE}", scene=SCORED)


def recorded(wildcards):
    """The file of a recorded scan, where the workflow can wait for it: a download, or a file that
    is here. One that is not is the job's to miss, in one line."""
    scan = RUN.scans[wildcards.scan]
    if scan.url is not None:
        return f"<results>/{layout.RECORDED}".replace("{file}", scan.name)
    return [str(scan.path)] if scan.path.is_file() else []


def recorded_words(wildcards):
    """What `ccstae import` reads, and how."""
    scan = RUN.scans[wildcards.scan]
    path = scan.path
    if path is None:
        path = RUN_DIR / layout.RECORDED.format(scan=wildcards.scan, file=scan.name)
    return [str(path), *scan.import_options]


def references(wildcards):
    """The files that a scan is calibrated with."""
    scan = RUN.scans[wildcards.scan]
    files = [scan.probe, scan.rings and scan.rings[0]]
    return [str(path) for path in files if path is not None and path.is_file()]


def of_scans(pattern):
    """A file of every recorded scan, and of every method that maps it."""
    files = expand(f"<results>/{pattern}", scan=RUN.scans, method=RUN.mapping_scans)
    return list(dict.fromkeys(files))  # one a scan where the pattern names no method


def truths():
    return expand(f"<results>/{layout.TRUTH}", scene=SCORED)


def maps():
    return expand(
        f"<results>/{layout.MAP}",
        scene=SCORED,
        level=LEVELS,
        seed=RUN.seeds.test,
        method=RUN.methods,
    )
