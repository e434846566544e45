"""A method from outside: any program that reads a counts file and writes a map file.

It is started as `<command> --counts FILE --map FILE --settings JSON`, without a shell, in an empty
working directory of its own. The command is trusted code: it runs with the rights of whoever runs
the benchmark.

A method with an `environment` of its own may fail: a run goes on without it, with a map that holds
no answer and says why.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ccstae.config.methods import Method
from ccstae.errors import InputError
from ccstae.io import beside
from ccstae.io.counts import Counts, read_counts, write_counts
from ccstae.io.maps import Map, read_map, write_map
from ccstae.machine import host
from ccstae.methods import base
from ccstae.methods.sample_frame import in_sample_frame, said_of_frame

LAST_LINES = 5


def run(
    method_id: str,
    entry: Method,
    counts_path: Path | str,
    map_path: Path | str,
    denoise: Callable[[Counts], Counts] | None = None,
) -> None:
    """Run a program on a counts file and write the map file, with what the run adds to it.

    Where pixels are bad, the program gets a copy of the file instead: `/mask` marks them, and in
    `/counts` they hold what their good neighbours do. So it does of denoised patterns, in float32.

    The map's attributes say method, settings, command, threads, host, processor, seconds and peak
    memory in bytes, and the program's own `device` and `versions`. `seconds` is what the program
    says of its mapping alone (the attribute `seconds` of what it wrote), else the time from its
    start to its end.

    Args:
        method_id: of the entry under `methods:`, for the map and for messages.
        entry: with `command`, and with settings, environment and time limit.
        counts_path: the counts file that the program gets.
        map_path: the map file to write, whole or not at all.
        denoise: a stage before the program, whose time counts too.

    Raises:
        InputError: where `answer` or `denoise` raises it. With an `environment`, the map holds no
            answer instead, and its attribute `error` says why.
    """
    counts = read_counts(counts_path)
    scan = counts.scan
    denoising = 0.0
    try:
        if denoise is not None:
            begun = time.perf_counter()
            counts = denoise(counts)
            denoising = time.perf_counter() - begun
        with as_file(counts, changed=denoise is not None) as path:
            written = answer(method_id, entry, path, scan)
        written.attributes["seconds"] += denoising
    except InputError as error:
        if entry.environment is None:
            raise
        print(f"{error}: the run goes on without it", file=sys.stderr)
        written = Map(
            np.full((*scan, 2, 2), np.nan),
            {"seconds": 0.0, "peak_memory_bytes": 0, "error": str(error)},
        )
    given = {
        name: str(written.attributes.get(name, default))
        for name, default in (("device", "cpu"), ("versions", "{}"))
    }
    attributes = {
        "method": method_id,
        "settings": json.dumps(entry.settings),
        "command": entry.command or "",
        "threads": _threads(),
        "host": host.NAME,
        "processor": host.cpu_model(),
    }
    if entry.denoise is not None:
        attributes["denoise"] = json.dumps(entry.denoise.model_dump(mode="json"))
    measured = {
        name: written.attributes[name]
        for name in ("seconds", "peak_memory_bytes", "error")
        if name in written.attributes
    }
    found = {"bad_pixels": counts.bad_pixels} if counts.bad_pixels else {}
    if found:
        attributes["found"] = json.dumps(found)
    attributes |= said_of_frame(counts.calibration)
    written = in_sample_frame(written, counts.calibration)
    write_map(map_path, replace(written, attributes=attributes | given | measured))
    base.tell(counts_path, found)


@contextmanager
def as_file(counts: Counts, changed: bool = False) -> Iterator[Path]:
    """The counts file of a scan for a program: a copy whose bad pixels are filled where there are
    any, or whose patterns are `changed`.
    """
    if not counts.bad_pixels and not changed:
        yield counts.path
        return
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        path = Path(folder) / counts.path.name
        rows = (beside.filled(row, counts.good) for row in counts.scan_rows())
        write_counts(
            path,
            rows,
            counts.scan + counts.detector,
            counts.calibration,
            counts.probe,
            ~counts.good,
        )
        yield path


def answer(method_id: str, entry: Method, counts_path: Path | str, scan: tuple[int, ...]) -> Map:
    """Run a program on a counts file and read the map that it writes.

    Args:
        method_id: for messages.
        entry: with `command`, and with settings, environment and time limit.
        counts_path: the counts file that the program gets.
        scan: (Ry, Rx) of those counts, which the map must have.

    Returns:
        The map with the program's own attributes, `seconds` and `peak_memory_bytes` added.

    Raises:
        InputError: with the last lines that the program printed, where it cannot start, fails,
            takes longer than `time_limit_s`, writes no map, or writes one that `read_map` refuses.
    """
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        path = Path(folder) / "map.h5"
        words = command_words(method_id, entry.command or "", entry.environment)
        arguments = [
            "--counts",
            str(Path(counts_path).resolve()),
            "--map",
            str(path),
            "--settings",
            json.dumps(entry.settings),
        ]
        begun = time.perf_counter()
        printed = execute(method_id, words + arguments, folder, entry.time_limit_s)
        seconds = time.perf_counter() - begun
        if not path.exists():
            raise InputError(
                f"methods.{method_id}: the command wrote no map file; expected one at the path "
                f"after --map{printed}"
            )
        try:
            written = read_map(path, scan, complete=False)
        except InputError as error:
            raise InputError(f"methods.{method_id}: {error}{printed}") from None
    mapping = written.attributes.get("seconds")
    if mapping is not None:
        if not isinstance(mapping, int | float) or not 0 < mapping <= seconds:
            raise InputError(
                f"methods.{method_id}: attribute seconds is {mapping!r}; expected those of the "
                f"mapping, of {seconds:.3g} s in all"
            )
        seconds = float(mapping)
    # The largest of all children so far: exact where a process runs one method, as the workflow's
    # rules do.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return replace(
        written, attributes={**written.attributes, "seconds": seconds, "peak_memory_bytes": peak}
    )


def interpreter(environment: str) -> Path:
    """The file that holds the path of an environment's Python, or `error: ` and why there is none.
    The workflow's rule `environment` makes it.
    """
    return Path(".environments", f"{environment}.python")


def _python(method_id: str, environment: str) -> str:
    """The Python of an environment; InputError where it is missing or could not be made."""
    try:
        state = interpreter(environment).read_text().strip()
    except OSError:
        state = f"error: no {interpreter(environment)}; expected the workflow to have made it"
    if state.startswith("error: "):
        raise InputError(
            f"methods.{method_id}: environment {environment} missing: "
            f"{state.removeprefix('error: ')}"
        )
    if not Path(state).is_file():
        raise InputError(
            f"methods.{method_id}: environment {environment} missing: no {state}; remove "
            f"{interpreter(environment)} to make it anew"
        )
    return state


def _threads() -> int:
    """Threads that the program was told to use, as numerical libraries are told."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdigit() else len(os.sched_getaffinity(0))


def command_words(method_id: str, command: str, environment: str | None = None) -> list[str]:
    """Split a command into the words that start it.

    A program or script that exists here is given by its full path, since it runs elsewhere. Links
    stay links: a virtual environment's python is one, and knows its packages by it.

    Args:
        method_id: for messages.
        command: the program and its arguments, as a shell would take them.
        environment: whose Python the word `python` means.

    Raises:
        InputError: where it cannot be split, holds nothing, or the environment has no Python.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(
            f"methods.{method_id}.command: {command!r} cannot be split into words: {error}"
        ) from None
    if not words:
        raise InputError(
            f"methods.{method_id}.command: is empty; expected a program and its arguments"
        )
    if environment is not None and words[0] == "python":
        words[0] = _python(method_id, environment)
    return [str(Path(word).absolute()) if Path(word).is_file() else word for word in words]


def execute(method_id: str, command: list[str], folder: str, time_limit_s: float) -> str:
    """Run a command in a folder to its end; a program out of time is killed with all its children.

    Returns:
        The last lines that it printed, for a message.

    Raises:
        InputError: with these lines, where it cannot start, fails or takes too long.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(
                f"methods.{method_id}.command: {command[0]!r} cannot be started: {error.strerror}"
            ) from None
        try:
            code = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            problem = f"took longer than its time_limit_s of {time_limit_s:g} s"
        else:
            problem = f"failed with exit code {code}" if code else ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed = _last_lines(output)
    if problem:
        raise InputError(f"methods.{method_id}: the command {problem}{printed}")
    return printed


def _last_lines(output: IO[bytes]) -> str:
    """The end of a message: what the program printed last."""
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - 4000))
    lines = [
        line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()
    ]
    return (
        f"; it last printed: {' | '.join(lines[-LAST_LINES:])}" if lines else "; it printed nothing"
    )
