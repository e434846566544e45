"""A Slurm of one node on this machine, from Debian's packages `slurm-wlm` and `munge`.

Its daemons have a configuration of their own in a temporary folder, and touch no other Slurm.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
# Where Debian puts daemons, which is not on everybody's path.
DAEMONS = ("/usr/sbin", "/usr/local/sbin")
START_S = 30.0  # the controller and its node know each other in 2 to 5 seconds
STOP_S = 5.0
CORES = os.cpu_count() or 1
# What the largest job asks for. Memory is not counted, so a smaller machine may say that it has it.
MEMORY_MB = 16000

# Finished jobs stay to be asked about for an hour, as no database keeps them.
CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of a Slurm that this machine lacks."""
    return [name for name in PROGRAMS if which(name) is None]


def search_path() -> str:
    return os.pathsep.join([os.environ["PATH"], *DAEMONS])


def which(name: str) -> str | None:
    return shutil.which(name, path=search_path())


@contextmanager
def one_node_slurm() -> Iterator[None]:
    """Start it, for all programs that are started within; nothing of it is left after.

    Raises:
        RuntimeError: where it does not start, with the ends of its logs.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants its socket where all users could reach it
        before = dict(os.environ)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        os.environ["PATH"] = os.pathsep.join([str(folder / "bin"), search_path()])
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            for daemon in start(folder):
                daemons.append(daemon)
            yield
        finally:
            stop(folder, daemons)
            os.environ.clear()
            os.environ.update(before)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemons, one after the other; the last of them once the node is ready for jobs."""
    for inner in ("state", "spool", "bin"):
        (folder / inner).mkdir()
    # Snakemake's plugin takes the variable from the steps of its jobs, as clusters have their
    # configuration where Slurm looks for it.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {which("srun")} "$@"\n')
    srun.chmod(0o755)
    controller_port, daemon_port = free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            controller_port=controller_port,
            daemon_port=daemon_port,
            cores=CORES,
            memory_mb=MEMORY_MB,
        )
    )
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    yield daemon(
        folder,
        "munged",
        "--foreground",
        f"--socket={folder}/munge.socket",
        f"--key-file={key}",
        f"--log-file={folder}/munge.log",
        f"--pid-file={folder}/munge.pid",
        f"--seed-file={folder}/munge.seed",
    )
    until((folder / "munge.socket").exists, folder)
    yield daemon(folder, "slurmctld", "-D")
    yield daemon(folder, "slurmd", "-D")
    until(lambda: ask("sinfo", "--noheader", "--format=%t") == "idle", folder)


def daemon(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{words[0]}.said").open("w") as said:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def ask(*words: str) -> str:
    """What a command of Slurm prints; nothing where it fails."""
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def until(ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > end:
            logs = [
                f"{path.name}: {path.read_text()[-1500:]}"
                for path in sorted(folder.iterdir())
                if path.suffix in (".said", ".log")
            ]
            raise RuntimeError("Slurm did not start:\n" + "\n".join(logs))
        time.sleep(0.2)


def stop(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End every process that was told of this Slurm: its daemons, its jobs, and their children."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + STOP_S
        while (ours := processes(folder)) and time.monotonic() < end:
            for pid in ours:
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)
            time.sleep(0.2)
            for one in daemons:
                one.poll()  # so that none that has ended stays in the list of processes


def processes(folder: Path) -> list[int]:
    """The processes whose environment names this Slurm, but for this one."""
    named, found = str(folder).encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if named in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
