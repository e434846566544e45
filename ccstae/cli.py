"""The command line: one subcommand a stage, each of use without the workflow, and a few to look
around.

CONFIG is a YAML file, or `-` for the same on standard input. Bad input ends with one line and exit
code 2, as does a defect of the package; a breach of the baseline with 1, an interrupt with 130.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ccstae import cli_scan
from ccstae.config.methods import Method
from ccstae.config.run import dump, read
from ccstae.errors import InputError, unknown
from ccstae.io import layout
from ccstae.io.hdf5 import is_hdf5
from ccstae.machine.device import Device, keep_freed_memory
from ccstae.version import __version__

# The stages' modules are imported where they run: torch and abTEM take seconds, and `--help` should
# not.

app = typer.Typer(
    help="Strain mapping from noisy 4D-STEM, held against exact truth and the physical limit.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check, complete and describe configs.", no_args_is_help=True)
app.add_typer(config_app, name="config")
cli_scan.register(app)

INTERRUPTED = 130

ConfigPath = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML config file; - reads standard input.")
]
Out = Annotated[Path, typer.Option(help="Where the product goes.")]
RunDir = Annotated[Path, typer.Option("--run", help="The run's folder, results/<name>.")]


@app.callback(invoke_without_command=True)
def options(
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads for numerics; as many as there are cores where left out."
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Also write messages to this file.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    keep_freed_memory()
    # Threads that wait by spinning take the core from those that work: on a busy machine that costs
    # a factor of several.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        # Read by numpy, scipy and torch when they are first imported.
        for name in (
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "NUMBA_NUM_THREADS",
        ):
            os.environ[name] = str(threads)
    if log is not None:
        from ccstae.machine.progress import copy_stderr

        copy_stderr(log)


@app.command()
def simulate(
    config: ConfigPath,
    scene: str,
    out: Out,
    exact: Annotated[Path, typer.Option(help="Exact answers and gradients, for `truth`.")],
    device: Annotated[Device | None, typer.Option(help="In place of the config's.")] = None,
) -> None:
    """Simulate the clean patterns of a scene."""
    run = read(config)
    if device is not None:
        run = run.model_copy(update={"device": device})
    known("scene", scene, run.scenes)
    from ccstae.simulation import simulate

    simulate.write(run, scene, out, exact)


@app.command()
def truth(
    config: ConfigPath,
    scene: str,
    out: Out,
    clean: Annotated[Path, typer.Option("--scene", help="The clean patterns.")],
    exact: Annotated[Path, typer.Option(help="Exact answers and gradients from `simulate`.")],
) -> None:
    """Write a scene's truth file, with the Cramer-Rao bound of every noise level."""
    run = read(config)
    known("scene", scene, run.scenes)
    from ccstae.simulation import truth

    truth.write(run, scene, clean, exact, out)


@app.command()
def noise(
    config: ConfigPath,
    scene: str,
    level: str,
    seed: int,
    out: Out,
    clean: Annotated[Path, typer.Option("--scene", help="The clean patterns.")],
) -> None:
    """Draw the noisy counts of a scene at a noise level."""
    run = read(config)
    known("scene", scene, run.scenes)
    run.level(level)
    from ccstae.simulation import noise

    noise.write(run, scene, level, seed, clean, out)


@app.command("map")
def map_strain(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SCAN",
            help="A config, as YAML, - for standard input; or a calibrated scan alone, HDF5.",
        ),
    ],
    out: Out,
    method: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="A method of the config.")
    ] = None,
    counts: Annotated[Path | None, typer.Option(help="The counts, with a config.")] = None,
    chosen: Annotated[
        str | None,
        typer.Option("--method", help="The method for a scan; ccstae where left out."),
    ] = None,
    settings: Annotated[
        str | None, typer.Option("--set", metavar="JSON", help="Settings of --method.")
    ] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="Settings that `tune` chose, instead of the config's.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="What the method learned from another scan: nothing is trained."),
    ] = None,
    save_weights: Annotated[
        Path | None, typer.Option(help="Where to keep what the method learns, for other scans.")
    ] = None,
    block: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="I N",
            help="Do the I-th of N blocks of the scan alone; the whole map finds it there.",
        ),
    ] = None,
    from_map: Annotated[
        Path | None,
        typer.Option(
            help="The map that the row goes on from, that before its stage `smooth` or before it is"
            " pooled: nothing is mapped anew."
        ),
    ] = None,
) -> None:
    """Map strain with a method: of a scan of one's own, or of a config."""
    if block is not None and not 1 <= block[0] <= block[1]:
        raise InputError(f"--block {block[0]} {block[1]}: expected I and N, with I from 1 to N")
    from ccstae.methods import run as methods

    if is_hdf5(config):
        if method is not None or counts is not None or tuned is not None or from_map is not None:
            raise InputError(
                f"{config} is a scan; expected no METHOD, --counts, --tuned or --from-map, which "
                f"go with a config: --method names the method"
            )
        row = Method(settings=json_mapping("--set", settings or "{}"))
        methods.write_row(
            row, chosen or "ccstae", "auto", config, out, weights, save_weights, block
        )
        return
    if method is None or counts is None or chosen is not None or settings is not None:
        raise InputError(
            f"{config} is no scan file (HDF5), and so a config; expected METHOD and --counts, and "
            f"neither --method nor --set"
        )
    run = read(config)
    known("method", method, run.methods)
    if tuned is not None:
        from ccstae.io.tuned import apply_tuned

        run = apply_tuned(run, method, tuned)
    methods.write(run, method, counts, out, weights, save_weights, block, from_map)


@app.command()
def tune(config: ConfigPath, method: str, level: str, run_dir: RunDir, out: Out) -> None:
    """Search the best settings of a method at a noise level, on the run's tuning scenes and
    seeds."""
    run = read(config)
    known("method", method, run.methods)
    run.level(level)
    from ccstae.evaluation import tuning

    tuning.write(run, method, level, run_dir, out)


@app.command()
def control(
    config: ConfigPath,
    row: Annotated[str, typer.Argument(metavar="CONTROL")],
    scene: str,
    level: str,
    out: Out,
    counts: Annotated[Path, typer.Option(help="The noisy counts.")],
    clean: Annotated[Path, typer.Option("--scene", help="The clean patterns.")],
    truth: Annotated[Path, typer.Option(help="The truth.")],
) -> None:
    """Make the map of a positive control, with truth in hand."""
    run = read(config)
    known("method", row, run.methods)
    known("scene", scene, run.scenes)
    from ccstae.evaluation import controls

    controls.write(run, row, scene, level, counts, clean, truth, out)


@app.command()
def precision(
    config: ConfigPath,
    method: str,
    out: Out,
    counts: Annotated[Path, typer.Option(help="The scan, which is mapped again by halves.")],
    made: Annotated[Path, typer.Option("--map", help="The method's map of it.")],
) -> None:
    """Measure the map of a recorded scan without truth: split halves, neighbours, speed."""
    run = read(config)
    known("method", method, run.methods)
    from ccstae.evaluation import precision

    precision.write(run, method, counts, made, out)


@app.command()
def score(
    config: ConfigPath,
    run_dir: RunDir,
    out: Out,
    not_run: Annotated[
        Path | None,
        typer.Option(
            help="Where maps go that no program could make; else not_run.csv beside the scores."
        ),
    ] = None,
) -> None:
    """Hold the maps of a run against truth."""
    from ccstae.evaluation import score

    score.write(read(config), run_dir, out, not_run)


@app.command()
def throughput(
    config: ConfigPath,
    run_dir: RunDir,
    out: Out,
    cores: Annotated[int, typer.Option(min=1, help="How many all cores are.")],
) -> None:
    """Time every method anew on one core and on all."""
    from ccstae.evaluation import throughput

    throughput.write(read(config), run_dir, cores, out)


@app.command()
def published(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Measure the maps of a run as the published work counts errors, where others published of its
    truth."""
    from ccstae.evaluation import published

    published.write(read(config), run_dir, out)


@app.command()
def tables(
    config: ConfigPath, metrics: Annotated[Path, typer.Option(help="The scores.")], out: Out
) -> None:
    """Write the tables of a run."""
    from ccstae.reporting import tables

    tables.write(read(config), metrics, out)


@app.command()
def figures(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Draw the figures of a run."""
    from ccstae.reporting.figures import catalogue as figures

    figures.write(read(config), run_dir, out)


@app.command()
def report(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG|MAP", help="A run's config, or a map file, HDF5.")
    ],
    out: Out,
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="With a config: the run's folder, results/<name>.")
    ] = None,
    counts: Annotated[
        Path | None, typer.Option(help="With a map: its scan, which is mapped again by halves.")
    ] = None,
) -> None:
    """Write the report of a run, or of one map: one HTML file that opens offline."""
    if is_hdf5(config):
        if counts is None or run_dir is not None:
            raise InputError(f"{config} is a map; expected --counts, its scan, and no --run")
        from ccstae.reporting import map_report

        map_report.write(Path(config), counts, out)
        return
    if run_dir is None or counts is not None:
        raise InputError(f"{config} is no map (HDF5), and so a config; expected --run alone")
    from ccstae.reporting import report

    report.write(read(config), run_dir, out)


@app.command()
def regress(
    metrics: Annotated[Path, typer.Option(help="The scores of a run.")],
    baseline: Annotated[Path, typer.Option(help="The baseline, tests/baselines/<run>.yaml.")],
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Make the scores the new baseline instead of comparing them."
        ),
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write every entry as JSON.")] = None,
) -> None:
    """Hold the scores of a run against a baseline; exit code 1 where they are worse."""
    from ccstae.gate import compare as regress

    if update:
        regress.update(metrics, baseline)
    elif not regress.write(metrics, baseline, markdown, json):
        raise typer.Exit(1)


@app.command()
def provenance(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Write what made a run: versions, commit, machine, seeds, cost of every rule."""
    from ccstae.pipeline import provenance

    provenance.write(read(config), run_dir, out)


@app.command()
def summary(config: ConfigPath) -> None:
    """Print where a finished run's report is, and its main results."""
    from ccstae.reporting import tables

    run = read(config)
    run_dir = Path("results") / run.name
    metrics = run_dir / layout.METRICS
    for part in (tables.summary(metrics), tables.scan_summary(run, metrics)):
        print(f"\n{part}" if part else "", end="\n" if part else "")
    print(f"\nreport: {run_dir / layout.REPORT}")


@app.command("strain")
def strain(
    file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file.")],
    out: Annotated[
        Path,
        typer.Option(help="A file, .h5, .nc, .tif or .csv; figures go beside it, .png and .pdf."),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS,COLUMNS|LABEL|MASK",
            help="What is undeformed: 0:20,5:40, a label, or a .npy; else the commonest lattice.",
        ),
    ] = None,
    step_A: Annotated[
        float | None, typer.Option("--step-A", help="Of the scan, where the map does not say it.")
    ] = None,
) -> None:
    """Write strain and rotation of a map against a reference, its displacements, and the density
    of its dislocations."""
    from ccstae.reporting import strain as of_map

    of_map.write(file, out, step_A, reference)


@app.command("check-map")
def check_map(
    file: Path,
    counts: Annotated[
        Path | None, typer.Option(help="The counts file: the map must have the shape of its scan.")
    ] = None,
) -> None:
    """Say whether a map file is one that a run can score, and what is wrong if it is not."""
    import numpy as np

    from ccstae.io.counts import scan_shape
    from ccstae.io.maps import read_map

    answer = read_map(file, None if counts is None else scan_shape(counts), complete=False)
    rows, columns = answer.F.shape[:2]
    failed = int(np.isnan(answer.F).any((-1, -2)).sum())
    extra = [
        name for name in ("covariance", "label", "centre_px") if getattr(answer, name) is not None
    ]
    print(
        f"{file}: good: {rows} x {columns} positions, {failed} without an answer; also holds: "
        f"{', '.join(extra) or 'nothing else'}"
    )


@app.command("check-method")
def check_method(
    method: Annotated[
        str,
        typer.Argument(
            help="A method of this package, or the command of a program, as after `command:`."
        ),
    ],
    settings: Annotated[str, typer.Option(metavar="JSON", help="Settings of the method.")] = "{}",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest error of a strain component on clean patterns."),
    ] = None,
    time_limit_s: Annotated[
        float, typer.Option(min=0, help="The longest that a program may take for one scan.")
    ] = 600.0,
) -> None:
    """Hold a method against ideal patterns of known strain; exit code 1 where a check fails."""
    from dataclasses import replace

    from ccstae.config.methods import modules
    from ccstae.evaluation import method_contract

    given = json_mapping("--settings", settings)
    if method in modules():
        map_scan = method_contract.package_method(method, given)
    else:
        map_scan = method_contract.program(method, given, time_limit_s)
    allowed = method_contract.TOLERANCES.get(method, method_contract.DEFAULT_TOLERANCE)
    if tolerance is not None:
        allowed = replace(allowed, strain=tolerance)
    failed = 0
    for check in method_contract.check(map_scan, allowed):
        print(check, flush=True)
        failed += not check.passed
    total = len(method_contract.FORM + method_contract.STRAIN)
    print(f"{method}: {total - failed} of {total} checks passed")
    if failed:
        raise typer.Exit(1)


@app.command("new-method")
def new_method(name: str) -> None:
    """Begin a method: write its module and a test that passes, in a checkout of this project."""
    from ccstae.evaluation import new_method

    for line in new_method.write(name):
        print(line)


@app.command()
def methods() -> None:
    """List the methods and their settings."""
    from ccstae.config import describe

    print(describe.methods())


@app.command()
def scenes() -> None:
    """List the kinds of scene and their settings."""
    from ccstae.config import describe

    print(describe.scenes())


@app.command()
def preview(
    config: ConfigPath,
    scene: str,
    out: Out,
    at: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW COLUMN", help="The position whose atoms to show."),
    ] = None,
) -> None:
    """Draw a scene to one PNG in seconds: truth, atoms, patterns."""
    run = read(config)
    known("scene", scene, run.scenes)
    from ccstae.reporting import preview
    from ccstae.specimen.build import build_scene, reference_warning

    preview.write(run, scene, out, at)
    warn(reference_warning(scene, build_scene(run, scene)))


@config_app.command()
def check(config: ConfigPath) -> None:
    """Check a config and say what a run of it would hold."""
    from ccstae.specimen.build import build_scene, reference_warning

    run = read(config)
    warnings = []
    for scene in run.scenes:
        try:
            warnings.append(reference_warning(scene, build_scene(run, scene)))
        except InputError as error:
            raise InputError(f"{config}: {error}") from None
    for warning in warnings:
        warn(warning)
    maps = len(run.scored) * len(run.levels) * len(run.seeds.test) * len(run.methods)
    maps += len(run.scans) * len(run.mapping_scans)
    scans = f"{len(run.scans)} scans, " if run.scans else ""
    print(
        f"{config}: good: {len(run.scored)} scenes, {len(run.levels)} noise levels, {scans}"
        f"{len(run.methods)} methods, {maps} maps"
    )


@config_app.command()
def resolve(
    config: ConfigPath,
    out: Annotated[Path | None, typer.Option(help="A file instead of standard output.")] = None,
) -> None:
    """Print a config with every default filled in."""
    text = dump(read(config))
    if out is None:
        print(text, end="")
    else:
        from ccstae.io.atomic import write_text

        write_text(out, text)


@config_app.command()
def schema() -> None:
    """Print the JSON schema of configs."""
    from ccstae.config.schema import schema as config_schema

    print(json.dumps(config_schema(), indent=2))


def json_mapping(option: str, text: str) -> dict[str, Any]:
    """Settings as an option gives them; InputError where they are none."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: {text!r} is not valid JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputError(f"{option}: {text!r} is no mapping; expected one, as in a config")
    return given


def known(what: str, name: str, names: Iterable[str]) -> None:
    """InputError for an id that the config does not have."""
    if name not in names:
        raise InputError(unknown(what, name, names))


def warn(warning: str | None) -> None:
    """Print a warning, where there is one, beside what the command prints."""
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)


def main() -> None:
    """Run the command line; whatever goes wrong ends with one line.

    Bad input, a system that refuses and a defect of this package end with exit code 2, an interrupt
    with 130. A defect's traceback goes to the file of `--log`, and to standard error where the
    environment variable CCSTAE_TRACEBACK is set.
    """
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # as typer ends where a key or a signal interrupts it
            fail("interrupted", INTERRUPTED)
        raise
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except InputError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's
            fail(
                f"out of memory: {error or 'none left'}; expected more memory, or smaller patterns"
            )
        fail(defect(error))


def defect(error: Exception) -> str:
    """A line for an exception that nobody foresaw: its type, its message, and where it arose."""
    from ccstae.machine.progress import Copy

    report = "".join(traceback.format_exception(error))
    if os.environ.get("CCSTAE_TRACEBACK"):
        print(report, end="", file=sys.stderr)
    elif isinstance(sys.stderr, Copy):
        sys.stderr.log.write(report)
    package = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    at = ours[-1]  # `main` at the least
    file = Path(at.filename).relative_to(package.parent)
    return (
        f"{type(error).__name__} at {file}:{at.lineno}: {error}; this is a defect of ccstae: "
        f"please report it with its traceback, which CCSTAE_TRACEBACK=1 shows"
    )


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line and exit with a code."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
