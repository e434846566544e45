"""Faults that need a real run, a mount or a GPU, each tried on a copy of the project.

    python tools/faults.py kill --times 20   kill -9 of the run, of a worker and of Snakemake
                                             at random moments of config/ci.yaml
    python tools/faults.py disk              a disk that fills, at one stage after another
    python tools/faults.py readonly          a read-only results folder
    python tools/faults.py gpu               a GPU with too little memory (needs a GPU)

`disk` and `readonly` need the right to mount.

After every fault the next run must finish without any cleaning up, with the scores of an
undisturbed run. What needs no real run is in tests/workflow/test_faults.py.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from checkout import REAL, Checkout, copy, finished, scores

RUN = ("--configfile", "config/ci.yaml", "--no-hooks")
# Full in the simulation, in the noise, and in the maps; a run takes some 40 MB.
DISKS_MB = (2, 10, 14, 20)


def undisturbed(folder: Path) -> tuple[Checkout, list[str], float]:
    """A finished checkout, its scores, and how long it took."""
    checkout, begun = copy(folder / "undisturbed", REAL), time.monotonic()
    done = checkout.snakemake(*RUN)
    if done.returncode:
        sys.exit(f"the undisturbed run failed: {done.stderr[-2000:]}")
    return checkout, scores(checkout.path / "results/ci"), time.monotonic() - begun


def fresh(checkout: Checkout) -> None:
    for name in ("results", ".snakemake"):
        shutil.rmtree(checkout.path / name, ignore_errors=True)


def workers(session: int) -> list[int]:
    """Processes of a session that run a stage."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if os.getsid(int(folder.name)) == session and any(
                word.endswith(b"/bin/ccstae") for word in words
            ):
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def kill(folder: Path, times: int, seed: int) -> int:
    """Kill -9 at random moments; how many runs did not recover."""
    checkout, expected, seconds = undisturbed(folder)
    print(f"the undisturbed run took {seconds:.0f} s", flush=True)
    draw, wrong = random.Random(seed), 0
    for i in range(times):
        fresh(checkout)
        process = checkout.start(*RUN)
        moment, victim = draw.uniform(0, seconds), ("the run", "a worker", "Snakemake")[i % 3]
        time.sleep(moment)
        running = workers(process.pid)
        if victim == "the run":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            for pid in (running[:1] or [process.pid]) if victim == "a worker" else [process.pid]:
                os.kill(pid, signal.SIGKILL)
        process.communicate() if victim != "Snakemake" else process.wait()
        done = checkout.snakemake(*RUN)
        left = [str(path) for path in checkout.path.rglob("*.partial")]
        good = (
            done.returncode == 0
            and scores(checkout.path / "results/ci") == expected
            and (victim == "Snakemake" or not left)
        )
        wrong += not good
        print(
            f"{'good ' if good else 'WRONG'}  {victim} killed after {moment:.0f} s "
            f"{'' if good else done.stderr[-800:]} {left}",
            flush=True,
        )
    return wrong


def mounted(checkout: Checkout, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the checkout with mounts of its own, which go with it."""
    return finished(
        checkout.command("unshare", "--map-root-user", "--mount", "bash", "-euc", script)
    )


SNAKEMAKE = f"{sys.executable} -m snakemake --cores 2 {' '.join(RUN)}"


def disk(folder: Path) -> int:
    """A disk that fills in the simulation, then, made larger each time, in the stages after it, and
    at last is large enough.
    """
    checkout, expected, _ = undisturbed(folder)
    fresh(checkout)
    (checkout.path / "results").mkdir()
    script = "mount -t tmpfs -o size=2m none results; "
    for size in DISKS_MB:
        script += f"mount -o remount,size={size}m results; {SNAKEMAKE} 2> said.{size} && exit 9; "
        script += "find results -name '.*.partial' | grep . && exit 8; "
    script += f"mount -o remount,size=2g results; {SNAKEMAKE}; rm -rf kept; cp -r results kept"
    done = mounted(checkout, script)
    said = [
        (checkout.path / f"said.{size}").read_text()
        for size in DISKS_MB
        if (checkout.path / f"said.{size}").exists()
    ]
    shutil.rmtree(checkout.path / "results")
    if done.returncode == 0:
        (checkout.path / "kept").rename(checkout.path / "results")
    told = ["No space left on device" in text and "Traceback" not in text for text in said]
    good = (
        done.returncode == 0
        and told == [True] * len(DISKS_MB)
        and scores(checkout.path / "results/ci") == expected
    )
    for size, text in zip(DISKS_MB, said, strict=False):
        print(
            f"{size} MB: "
            f"{next((line for line in text.splitlines() if 'No space' in line), text[-2000:])}"
        )
    print(
        f"{'good ' if good else 'WRONG'}  disk full, then not {'' if good else done.stderr[-3000:]}"
    )
    return not good


def readonly(folder: Path) -> int:
    """Results that nobody may write."""
    checkout = copy(folder / "readonly", REAL)
    (checkout.path / "results").mkdir()
    done = mounted(checkout, f"mount -t tmpfs -o ro none results; {SNAKEMAKE}")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    good = done.returncode == 2 and errors == [
        "error: results/ci: cannot be written: Read-only file system; expected a folder for the "
        "run's results"
    ]
    print(
        f"{'good ' if good else 'WRONG'}  read-only results {'' if good else done.stderr[-2000:]}"
    )
    return not good


def gpu(folder: Path) -> int:
    """Every method on a GPU that holds next to nothing: smaller batches or the CPU, said aloud,
    with the same map.
    """
    import torch

    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here")
    checkout, _, _ = undisturbed(folder)
    wrong = 0
    for method in ("com", "template", "ccstae"):
        counts = "results/ci/counts/heterostructure/w0.50_n100000.1.h5"
        program = (
            "import sys, torch; torch.cuda.set_per_process_memory_fraction({fraction});"
            " from ccstae.cli import main;"
            f" sys.argv = ['ccstae', 'map', 'gpu.yaml', '{method}', '--counts', '{counts}',"
            f" '--out', '{method}.{{fraction}}.h5'];"
            " main()"
        )
        (checkout.path / "gpu.yaml").write_text(
            (checkout.path / "config/ci.yaml").read_text().replace("device: cpu", "device: gpu")
        )
        for fraction in (1.0, 1e-3, 1e-5):
            done = finished(
                checkout.command(sys.executable, "-c", program.format(fraction=fraction))
            )
            said = "out of memory" in done.stderr
            good = done.returncode == 0 and (fraction > 1e-5 or said)
            wrong += not good
            print(
                f"{'good ' if good else 'WRONG'}  {method} with {fraction:g} of the memory: "
                f"{done.stderr.strip().splitlines()[-1:]}",
                flush=True,
            )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fault", choices=("kill", "disk", "readonly", "gpu"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ccstae-faults-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        tries = {"disk": disk, "readonly": readonly, "gpu": gpu}
        wrong = (
            kill(folder, given.times, given.seed)
            if given.fault == "kill"
            else tries[given.fault](folder)
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
