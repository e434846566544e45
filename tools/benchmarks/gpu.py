"""A GPU against the CPU of the same machine: the same numbers, how fast, and what happens where its
memory ends.

    python tools/benchmarks/gpu.py [--seconds 280] [--json gpu.json] [--part NAME] [COUNTS.h5 ...]

Patterns are the ideal ones of the tests, on a background of the published form, or counts files
given by name. Large scans repeat 512 of them. The parts come in the order in which they matter.
One that would begin after `--seconds` is left out, and what is known so far is in the JSON file
after every part. A rate is that of a second call, since the first loads the kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccstae import geometry
from ccstae.config.methods import settings
from ccstae.io.counts import Counts, read_counts
from ccstae.machine import device
from ccstae.methods import base
from ccstae.methods.base import Answer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import synthetic

LEVELS = ((0.25, 1e5), (0.7, 1e5))  # background, electrons
SETTINGS: dict[str, dict[str, Any]] = {
    "ccstae-2023": {"channels": 8, "pools": [3, 2, 1], "epochs": [1, 1], "batch": [16, 16]}
}
MAX_DIFFERENCE = 1e-4  # of F, above which a position is told apart
BEGAN = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("counts", nargs="*", type=Path, metavar="COUNTS.h5")
    parser.add_argument("--seconds", type=float, default=280)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", default="", help="only parts whose names begin so")
    parser.add_argument("--patterns", type=int, default=512, help="to compare with the CPU")
    parser.add_argument("--inferred", type=int, default=16384, help="patterns of the largest scan")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here")
    report: dict[str, Any] = {"machine": machine()}
    print(json.dumps(report["machine"]), flush=True)
    some, many = options.patterns, options.inferred
    parts: list[tuple[str, Callable[[], Any]]] = []
    scans: dict[str, Callable[[], Counts]] = {
        f"w {w:.2f}, {electrons:.0e}": lambda w=w, electrons=electrons: scan(some, w, electrons)  # type: ignore[misc]
        for w, electrons in LEVELS
    }
    if options.counts:
        scans = {path.stem: lambda path=path: read_counts(path) for path in options.counts}  # type: ignore[misc]
    for name, made in scans.items():
        parts.append((f"same numbers, {name}", lambda made=made: same_numbers(made())))  # type: ignore[misc]
    parts += [
        ("rates, 128 px", lambda: rates(scan(many, 0.25, 1e5))),
        ("profile", lambda: profile(scan(min(many, 4096), 0.25, 1e5))),
        ("memory", lambda: full_memory(scan(2048, 0.25, 1e5))),
        ("rates, 200 px", lambda: rates(scan(many // 4, 0.25, 1e5, px=200), cpu=False)),
        ("rates, 128 px, w 0.70", lambda: rates(scan(many, 0.7, 1e5), cpu=False)),
        ("same numbers, ccstae-2023", lambda: published(scan(48, 0.0, 1e5))),
        ("simulation", simulation),
    ]
    for name, part in parts:
        if not name.startswith(options.part):
            continue
        begun = time.perf_counter()
        if begun - BEGAN > options.seconds:
            report[name] = "left out: no time"
            print(f"\n{name}: left out, no time", flush=True)
            continue
        print(f"\n{name}", flush=True)
        try:
            report[name] = part()
        except Exception as error:  # what breaks must not hide the parts after it
            traceback.print_exc(limit=-4)
            report[name] = f"{type(error).__name__}: {error}"
        torch.cuda.empty_cache()
        print(f"  ({time.perf_counter() - begun:.0f} s)", flush=True)
        options.json.write_text(json.dumps(report, indent=1))


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "card": torch.cuda.get_device_name(),
        "GiB": round(torch.cuda.mem_get_info()[1] / 2**30, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def scan(patterns: int, background: float, electrons: float, px: int = 128) -> Counts:
    """Counts (n, 32, Qy, Qx), 512 patterns over and over."""
    different = min(patterns, 512)
    F = synthetic.random_deformations((different // 32, 32))
    # A larger detector sees the same disks at the same size, and more of them.
    counts = synthetic.Model(px=px).counts(F, electrons, background)
    times = -(-patterns // different)
    return replace(counts, counts=np.tile(counts.counts, (times, 1, 1, 1)))


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the GPU is done, and what the task gives."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    result = task()
    torch.cuda.synchronize()
    return time.perf_counter() - begun, result


def mapped(method: str, counts: Counts, on: str) -> Answer:
    """The answer of a method with its default settings."""
    chosen = settings(method)(**SETTINGS.get(method, {}))
    answer: Answer = base.load(method).map_strain(counts, chosen, on)
    return answer


def same_numbers(counts: Counts) -> dict[str, Any]:
    """How far every method's F on the GPU is from that on the CPU, and the time of both."""
    n = int(np.prod(counts.counts.shape[:2]))
    out: dict[str, Any] = {}
    for method in ("com", "template", "cepstral"):
        cpu_s, on_cpu = timed(lambda method=method: mapped(method, counts, "cpu"))
        first_s, _ = timed(lambda method=method: mapped(method, counts, "cuda"))
        gpu_s, on_gpu = timed(lambda method=method: mapped(method, counts, "cuda"))
        out[method] = {
            **compared(on_cpu, on_gpu),
            "CPU/s": round(n / cpu_s),
            "first GPU/s": round(n / first_s),
            "GPU/s": round(n / gpu_s),
        }
        told(method, out[method])
    ccstae = base.load("ccstae")
    chosen = settings("ccstae")()
    learn_cpu_s, model = timed(lambda: ccstae.learn(counts, chosen, "cpu"))
    learn_gpu_s, learned = timed(lambda: ccstae.learn(counts, chosen, "cuda"))
    out["learning"] = {"CPU s": round(learn_cpu_s, 2), "GPU s": round(learn_gpu_s, 2)}
    told("learning", out["learning"])
    if model is None or learned is None:
        return out
    with tempfile.TemporaryDirectory() as folder:
        ccstae.save(Path(folder, "weights"), model)
        moved = ccstae.load(Path(folder, "weights"), counts, chosen, "cuda")
    for method in ("ccstae", "ccstae-pooled"):
        apply = base.load(method).apply
        cpu_s, on_cpu = timed(lambda apply=apply: apply(model, counts, "cpu"))
        timed(lambda apply=apply: apply(moved, counts, "cuda"))
        gpu_s, on_gpu = timed(lambda apply=apply: apply(moved, counts, "cuda"))
        out[method] = {
            **compared(on_cpu, on_gpu),
            "CPU/s": round(n / cpu_s),
            "GPU/s": round(n / gpu_s),
        }
        told(method, out[method])
        out[f"{method}, learned there"] = compared(on_cpu, apply(learned, counts, "cuda"))
        told(f"{method}, learned there", out[f"{method}, learned there"])
    return out


def published(counts: Counts) -> dict[str, Any]:
    """`ccstae-2023` after a training too short to measure: rounding grows in it."""
    cpu_s, on_cpu = timed(lambda: mapped("ccstae-2023", counts, "cpu"))
    gpu_s, on_gpu = timed(lambda: mapped("ccstae-2023", counts, "cuda"))
    out = {**compared(on_cpu, on_gpu), "CPU s": round(cpu_s, 1), "GPU s": round(gpu_s, 1)}
    told("ccstae-2023", out)
    return out


def compared(on_cpu: Answer, on_gpu: Answer) -> dict[str, Any]:
    """Differences of F, the worst and the median; and of the positions beyond `MAX_DIFFERENCE` how
    many, and how far they are apart in stated deviations.
    """
    difference = np.abs(on_gpu.F - on_cpu.F).max((-1, -2))
    both = np.isfinite(difference)
    out: dict[str, Any] = {
        "worst": float(difference[both].max(initial=0)),
        "median": float(np.median(difference[both])) if both.any() else None,
        "beyond": int((difference > MAX_DIFFERENCE).sum()),
        "of": int(both.sum()),
        "answered on one alone": int(
            (np.isnan(on_cpu.F) != np.isnan(on_gpu.F)).any((-1, -2)).sum()
        ),
    }
    if on_cpu.covariance is not None and both.any():
        apart = geometry.components(on_gpu.F) - geometry.components(on_cpu.F)
        deviation = np.sqrt(np.diagonal(on_cpu.covariance, axis1=-2, axis2=-1))
        out["deviations, worst"] = float(np.abs(apart / deviation)[both].max())
        assert on_gpu.covariance is not None
        ratio = np.sqrt(np.diagonal(on_gpu.covariance, axis1=-2, axis2=-1)) / deviation
        out["stated deviation, worst ratio"] = float(np.exp(np.abs(np.log(ratio[both])).max()))
    if on_cpu.label is not None and on_gpu.label is not None:
        out["other label"] = int((on_cpu.label != on_gpu.label).sum())
    return out


def rates(counts: Counts, cpu: bool = True) -> dict[str, Any]:
    """Patterns a second on the GPU; on the CPU, of an eighth as many."""
    n = int(np.prod(counts.counts.shape[:2]))
    out: dict[str, Any] = {"patterns": n, "px": counts.counts.shape[-1]}
    fewer = replace(counts, counts=counts.counts[: max(1, counts.counts.shape[0] // 8)])
    share = n / int(np.prod(fewer.counts.shape[:2]))
    for method in ("com", "template"):
        timed(lambda method=method: mapped(method, fewer, "cuda"))
        torch.cuda.reset_peak_memory_stats()
        gpu_s, _ = timed(lambda method=method: mapped(method, counts, "cuda"))
        out[method] = {"GPU/s": round(n / gpu_s), "GPU GiB": peak_GiB()}
        if cpu:
            cpu_s, _ = timed(lambda method=method: mapped(method, fewer, "cpu"))
            out[method]["CPU/s"] = round(n / share / cpu_s)
        told(method, out[method])
    ccstae = base.load("ccstae")
    teachers = replace(counts, counts=counts.counts[:32])
    learn_s, model = timed(lambda: ccstae.learn(teachers, settings("ccstae")(), "cuda"))
    out["ccstae, learning"] = {"GPU s": round(learn_s, 2)}
    told("ccstae, learning", out["ccstae, learning"])
    if model is not None:
        timed(lambda: ccstae.apply(model, teachers, "cuda"))
        torch.cuda.reset_peak_memory_stats()
        gpu_s, _ = timed(lambda: ccstae.apply(model, counts, "cuda"))
        out["ccstae, applied"] = {"GPU/s": round(n / gpu_s), "GPU GiB": peak_GiB()}
        told("ccstae, applied", out["ccstae, applied"])
    return out


def peak_GiB() -> float:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def profile(counts: Counts) -> dict[str, Any]:
    """Launches, waits and the longest operations of each method, on as many patterns as given."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    ccstae = base.load("ccstae")
    teachers = replace(counts, counts=counts.counts[:16])
    model = ccstae.learn(teachers, settings("ccstae")(), "cuda")
    tasks: dict[str, Callable[[], Any]] = {
        "com": lambda: mapped("com", counts, "cuda"),
        "template": lambda: mapped("template", counts, "cuda"),
        "ccstae, applied": lambda: ccstae.apply(model, counts, "cuda"),
    }
    out: dict[str, Any] = {}
    for name, task in tasks.items():
        seconds, _ = timed(task)
        with profiled(activities={ProfilerActivity.CPU, ProfilerActivity.CUDA}) as recorded:
            timed(task)
        events = recorded.key_averages()
        calls = {event.key: event.count for event in events}
        on_gpu = sum(event.self_device_time_total for event in events) / 1e6
        longest = sorted(events, key=lambda e: -e.self_device_time_total)[:12]
        waiting = sorted(events, key=lambda e: -e.self_cpu_time_total)[:12]
        out[name] = {
            "s": round(seconds, 3),
            "s on the GPU": round(on_gpu, 3),
            "launches": sum(n for key, n in calls.items() if "LaunchKernel" in key),
            "waits": sum(n for key, n in calls.items() if "Synchronize" in key),
            "longest on the GPU, ms": {
                e.key[:60]: round(e.self_device_time_total / 1e3, 1) for e in longest
            },
            "longest on the CPU, ms": {
                e.key[:60]: (round(e.self_cpu_time_total / 1e3, 1), e.count) for e in waiting
            },
        }
        told(name, out[name])
    return out


HELD = """
import sys, torch
sys.path[:0] = [{root!r}, {support!r}]
import synthetic
from ccstae.config.methods import settings
from ccstae.machine import device
from ccstae.methods import base
counts = synthetic.Model().counts(synthetic.random_deformations((2, 32)), 1e5, 0.25)
_, used = device.within_memory(
    "method com", lambda on: base.load("com").map_strain(counts, settings("com")(), on), "cuda")
print(used)
"""


def full_memory(counts: Counts) -> dict[str, Any]:
    """The GPU filled but for so much, and a map of `template`: which device answers, what is said,
    and whether the answer is that of the GPU with all its memory; then a process of its own that
    begins on a full GPU.
    """
    expected = mapped("template", counts, "cuda")
    out: dict[str, Any] = {}
    for free_MiB in (4096, 768, 32):
        torch.cuda.empty_cache()
        size = torch.cuda.mem_get_info()[0] - free_MiB * 2**20
        held = torch.empty(size, dtype=torch.uint8, device="cuda")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            answer, used = device.within_memory(
                "method template", lambda on: mapped("template", counts, on), "cuda"
            )
        out[f"{free_MiB} MiB free"] = {
            "answered on": used,
            "said": said.getvalue().strip().splitlines(),
            "median difference": float(np.nanmedian(np.abs(answer.F - expected.F))),
        }
        told(f"{free_MiB} MiB free", out[f"{free_MiB} MiB free"])
        if free_MiB == 32:
            program = HELD.format(root=str(ROOT), support=str(ROOT / "tests" / "support"))
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, timeout=90
            )
            out["another process"] = {
                "code": done.returncode,
                "answered on": done.stdout.strip(),
                "said": done.stderr.strip().splitlines()[-4:],
            }
            told("another process", out["another process"])
        del held
    return out


def simulation() -> dict[str, Any]:
    """Patterns of one tile of the ci heterostructure on both, where abTEM is there."""
    try:
        import abtem  # noqa: F401
    except ImportError as error:
        print(f"  left out: {error}")
        return {"left out": str(error)}
    from ccstae.config.run import load
    from ccstae.simulation import simulate
    from ccstae.specimen.build import build_scene

    config = load(ROOT / "config" / "ci.yaml")
    scene = build_scene(config, "heterostructure")
    positions = scene.positions[:4, :8]
    out: dict[str, Any] = {}
    cpu_s, on_cpu = timed(lambda: simulate.renderer(config, scene, "cpu").tile(scene, positions))
    timed(lambda: simulate.renderer(config, scene, "cuda").tile(scene, positions))
    gpu_s, on_gpu = timed(lambda: simulate.renderer(config, scene, "cuda").tile(scene, positions))
    n = positions.shape[0] * positions.shape[1]
    out["CPU/s"], out["GPU/s"] = round(n / cpu_s, 1), round(n / gpu_s, 1)
    for name, here, there in zip(("patterns", "gradient"), on_cpu, on_gpu, strict=True):
        out[f"{name}, worst over brightest"] = float(np.abs(there - here).max() / here.max())
    told("heterostructure", out)
    return out


def told(name: str, values: dict[str, Any]) -> None:
    """One line of the table; what is a table itself below it."""
    words = {k: v for k, v in values.items() if not isinstance(v, dict)}
    text = "   ".join(
        f"{k} {v:.2g}" if isinstance(v, float) and k not in ("GPU GiB",) else f"{k} {v}"
        for k, v in words.items()
    )
    print(f"  {name:30s}{text}", flush=True)
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"    {key}: {value}", flush=True)


if __name__ == "__main__":
    main()
