"""The commands that are stages of a run, and `summary` of a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccstae.commands.arguments import ConfigPath, Out, RunDir, json_mapping, known
from ccstae.config.methods import Method
from ccstae.config.run import read
from ccstae.errors import InputError
from ccstae.io import layout
from ccstae.io.hdf5 import is_hdf5
from ccstae.machine.device import Device


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

    options = methods.Options(weights, save_weights, block, from_map)
    if is_hdf5(config):
        if method is not None or counts is not None or tuned is not None or from_map is not None:
            raise InputError(
                f"{config} is a scan; expected no METHOD, --counts, --tuned or --from-map, which "
                f"go with a config: --method names the method"
            )
        row = Method(settings=json_mapping("--set", settings or "{}"))
        methods.write_row(row, chosen or "ccstae", "auto", config, out, options)
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
    methods.write(run, method, counts, out, options)


def tune(config: ConfigPath, method: str, level: str, run_dir: RunDir, out: Out) -> None:
    """Search the best settings of a method at a noise level, on the run's tuning scenes and
    seeds."""
    run = read(config)
    known("method", method, run.methods)
    run.level(level)
    from ccstae.evaluation import tuning

    tuning.write(run, method, level, run_dir, out)


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


def throughput(
    config: ConfigPath,
    run_dir: RunDir,
    out: Out,
    cores: Annotated[int, typer.Option(min=1, help="How many all cores are.")],
) -> None:
    """Time every method anew on one core and on all."""
    from ccstae.evaluation import throughput

    throughput.write(read(config), run_dir, cores, out)


def published(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Measure the maps of a run as the published work counts errors, where others published of its
    truth."""
    from ccstae.evaluation import published

    published.write(read(config), run_dir, out)


def tables(
    config: ConfigPath, metrics: Annotated[Path, typer.Option(help="The scores.")], out: Out
) -> None:
    """Write the tables of a run."""
    from ccstae.reporting import tables

    tables.write(read(config), metrics, out)


def figures(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Draw the figures of a run."""
    from ccstae.reporting.figures import catalogue as figures

    figures.write(read(config), run_dir, out)


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


def provenance(config: ConfigPath, run_dir: RunDir, out: Out) -> None:
    """Write what made a run: versions, commit, machine, seeds, cost of every rule."""
    from ccstae.pipeline import provenance

    provenance.write(read(config), run_dir, out)


def summary(config: ConfigPath) -> None:
    """Print where a finished run's report is, and its main results."""
    from ccstae.reporting import tables

    run = read(config)
    run_dir = Path("results") / run.name
    metrics = run_dir / layout.METRICS
    for part in (tables.summary(metrics), tables.scan_summary(run, metrics)):
        print(f"\n{part}" if part else "", end="\n" if part else "")
    print(f"\nreport: {run_dir / layout.REPORT}")
