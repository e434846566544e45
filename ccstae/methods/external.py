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
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ccstae.config.methods import Method
from ccstae.errors import InputError
from ccstae.io.hdf5 import dataset, opened
from ccstae.io.maps import Map, read_map, write_map

LAST_LINES = 5


def run(method_id: str, entry: Method, counts_path: Path | str, map_path: Path | str) -> None:
    """Run `entry.command` on `counts_path`, check the map it writes and give it its final name,
    with seconds and settings added.

    InputError, with the last lines the program printed, where it cannot start, fails, takes longer
    than `time_limit_s`, writes no map, or writes one that breaks the contract; with an
    `environment`, that becomes the map's attribute `error` instead. `seconds` is what the program
    says of its mapping alone (the map's own attribute `seconds`), else the time from its start to
    its end.
    """
    with opened(counts_path) as file:
        scan = dataset(file, "counts", 4, "u").shape[:2]
    try:
        answer = _answer(method_id, entry, counts_path, scan)
    except InputError as error:
        if entry.environment is None:
            raise
        print(f"{error}: the run goes on without it", file=sys.stderr)
        answer = Map(
            np.full((*scan, 2, 2), np.nan),
            {"seconds": 0.0, "peak_memory_bytes": 0, "error": str(error)},
        )
    given = {
        name: str(answer.attributes.get(name, default))
        for name, default in (("device", "cpu"), ("versions", "{}"))
    }
    attributes = {
        "method": method_id,
        "settings": json.dumps(entry.settings),
        "command": entry.command or "",
        "threads": _threads(),
    }
    measured = {
        name: answer.attributes[name]
        for name in ("seconds", "peak_memory_bytes", "error")
        if name in answer.attributes
    }
    write_map(map_path, replace(answer, attributes=attributes | given | measured))


def _answer(method_id: str, entry: Method, counts_path: Path | str, scan: tuple[int, ...]) -> Map:
    """The map that the command writes, with the attributes seconds and peak_memory_bytes."""
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        written = Path(folder) / "map.h5"
        words = _words(method_id, entry.command or "", entry.environment)
        arguments = [
            "--counts",
            str(Path(counts_path).resolve()),
            "--map",
            str(written),
            "--settings",
            json.dumps(entry.settings),
        ]
        begun = time.perf_counter()
        said = _execute(method_id, words + arguments, folder, entry.time_limit_s)
        seconds = time.perf_counter() - begun
        if not written.exists():
            raise InputError(
                f"methods.{method_id}: the command wrote no map file; expected one at the path "
                f"after --map{said}"
            )
        try:
            answer = read_map(written, scan, complete=False)
        except InputError as error:
            raise InputError(f"methods.{method_id}: {error}{said}") from None
    own = answer.attributes.get("seconds")
    if own is not None:
        if not isinstance(own, int | float) or not 0 < own <= seconds:
            raise InputError(
                f"methods.{method_id}: attribute seconds is {own!r}; expected those of the "
                f"mapping, of {seconds:.3g} s in all"
            )
        seconds = float(own)
    # The largest of all children so far: exact where a process runs one method, as the workflow's
    # rules do.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return replace(
        answer, attributes={**answer.attributes, "seconds": seconds, "peak_memory_bytes": peak}
    )


def interpreter(environment: str) -> Path:
    """The file that says which Python an environment has, made by the workflow's rule
    `environment`.
    """
    return Path(".environments", f"{environment}.python")


def _python(method_id: str, environment: str) -> str:
    """The Python of an environment; InputError where it is missing or could not be made."""
    try:
        found = interpreter(environment).read_text().strip()
    except OSError:
        found = f"error: no {interpreter(environment)}; expected the workflow to have made it"
    if found.startswith("error: "):
        raise InputError(
            f"methods.{method_id}: environment {environment} missing: "
            f"{found.removeprefix('error: ')}"
        )
    if not Path(found).is_file():
        raise InputError(
            f"methods.{method_id}: environment {environment} missing: no {found}; remove "
            f"{interpreter(environment)} to make it anew"
        )
    return found


def _threads() -> int:
    """Threads that the program was told to use, as numerical libraries are told."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() else len(os.sched_getaffinity(0))


def _words(method_id: str, command: str, environment: str | None = None) -> list[str]:
    """The command's words; a program or script that exists here is given by its full path, since it
    runs elsewhere.

    Links stay links: a virtual environment's python is one, and knows its packages by it.
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


def _execute(method_id: str, command: list[str], folder: str, time_limit_s: float) -> str:
    """Run to the end; returns the last lines printed, for a message. A program out of time is
    killed with all its children.
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
        said = _last_lines(output)
    if problem:
        raise InputError(f"methods.{method_id}: the command {problem}{said}")
    return said


def _last_lines(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - 4000))
    lines = [
        line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()
    ]
    return (
        f"; it last printed: {' | '.join(lines[-LAST_LINES:])}" if lines else "; it printed nothing"
    )
