"""The command line: one subcommand a stage, each of use without the workflow, and a few to look
around.

CONFIG is a YAML file, or `-` for the same on standard input. Bad input ends with one line and exit
code 2, as does a defect of the package; a breach of the baseline with 1, an interrupt with 130.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ccstae.commands import configs, methods, scans, stages
from ccstae.errors import InputError
from ccstae.machine.device import keep_freed_memory
from ccstae.version import __version__

INTERRUPTED = 130

app = typer.Typer(
    help="Strain mapping from noisy 4D-STEM, held against exact truth and the physical limit.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check, complete and describe configs.", no_args_is_help=True)
app.add_typer(config_app, name="config")
# In the order of `--help`.
COMMANDS: dict[str, Callable[..., None]] = {
    "fetch": scans.fetch,
    "import": scans.import_scan,
    "calibrate": scans.calibrate,
    "simulate": stages.simulate,
    "truth": stages.truth,
    "noise": stages.noise,
    "map": stages.map_strain,
    "tune": stages.tune,
    "control": stages.control,
    "precision": stages.precision,
    "score": stages.score,
    "throughput": stages.throughput,
    "published": stages.published,
    "tables": stages.tables,
    "figures": stages.figures,
    "report": stages.report,
    "regress": stages.regress,
    "provenance": stages.provenance,
    "summary": stages.summary,
    "strain": scans.strain,
    "check-map": scans.check_map,
    "check-method": methods.check_method,
    "new-method": methods.new_method,
    "methods": methods.methods,
    "scenes": configs.scenes,
    "preview": configs.preview,
}
CONFIG_COMMANDS: dict[str, Callable[..., None]] = {
    "check": configs.check,
    "resolve": configs.resolve,
    "schema": configs.schema,
}
for part, commands in ((app, COMMANDS), (config_app, CONFIG_COMMANDS)):
    for name, command in commands.items():
        part.command(name)(command)


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
