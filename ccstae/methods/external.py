"""A method from outside: any program that reads a counts file and writes a map file.

It is started as `<command> --counts FILE --map FILE --settings JSON`, without a shell, in an empty working directory of its own.
The command is trusted code: it runs with the rights of whoever runs the benchmark.
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

from ccstae import store
from ccstae.config import Method
from ccstae.errors import InputError

LAST_LINES = 5


def run(method_id: str, entry: Method, counts_path: Path | str, map_path: Path | str) -> None:
    """Run `entry.command` on `counts_path`, check the map it writes and give it its final name, with seconds and settings added.

    InputError, with the last lines the program printed, where it cannot start, fails, takes longer than `time_limit_s`, writes no
    map, or writes one that breaks the contract. Times include the program's start.
    """
    with store.opened(counts_path) as file:
        scan = store.dataset(file, "counts", 4, "u").shape[:2]
    settings = json.dumps(entry.settings)
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        written = Path(folder) / "map.h5"
        command = [*_words(method_id, entry.command or ""), "--counts", str(Path(counts_path).resolve())]
        begun = time.perf_counter()
        said = _execute(method_id, [*command, "--map", str(written), "--settings", settings], folder, entry.time_limit_s)
        seconds = time.perf_counter() - begun
        if not written.exists():
            raise InputError(f"methods.{method_id}: the command wrote no map file; expected one at the path after --map{said}")
        try:
            answer = store.read_map(written, scan, complete=False)
        except InputError as error:
            raise InputError(f"methods.{method_id}: {error}{said}") from None
    # The largest of all children so far: exact where a process runs one method, as the workflow's rules do.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    given = {name: str(answer.attributes.get(name, default)) for name, default in (("device", "cpu"), ("versions", "{}"))}
    attributes = {"method": method_id, "settings": settings, "command": entry.command or "", "seconds": seconds, **given}
    attributes |= {"threads": len(os.sched_getaffinity(0)), "peak_memory_bytes": peak}
    store.write_map(map_path, replace(answer, attributes=attributes))


def _words(method_id: str, command: str) -> list[str]:
    """The command's words; a program or script that exists here is given by its full path, since it runs elsewhere.

    Links stay links: a virtual environment's python is one, and knows its packages by it.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"methods.{method_id}.command: {command!r} cannot be split into words: {error}") from None
    if not words:
        raise InputError(f"methods.{method_id}.command: is empty; expected a program and its arguments")
    return [str(Path(word).absolute()) if Path(word).is_file() else word for word in words]


def _execute(method_id: str, command: list[str], folder: str, time_limit_s: float) -> str:
    """Run to the end; returns the last lines printed, for a message. A program out of time is killed with all its children."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"methods.{method_id}.command: {command[0]!r} cannot be started: {error.strerror}") from None
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
    lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    return f"; it last printed: {' | '.join(lines[-LAST_LINES:])}" if lines else "; it printed nothing"
