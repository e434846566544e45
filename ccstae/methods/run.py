"""Run one method on one counts file: settings, device, time, memory, and the map file."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from ccstae.config import methods
from ccstae.config.methods import Method, MethodSettings, modules
from ccstae.config.run import Config, checked_settings
from ccstae.errors import InputError, unknown
from ccstae.io.counts import Counts, calibration_of, read_counts, scan_shape
from ccstae.io.maps import Map, read_alone, read_map, write_map
from ccstae.machine import host
from ccstae.machine.device import Device, resolve, within_memory
from ccstae.machine.finished import BlockDone, keeping
from ccstae.machine.sources import made_from
from ccstae.methods import base, external
from ccstae.methods.mirrored import refuse_mirrored
from ccstae.methods.sample_frame import in_sample_frame, said_of_frame
from ccstae.version import __version__


@dataclass(frozen=True)
class Options:
    """What else a map may begin with, or leave beside it."""

    weights: Path | str | None = None
    """What a method that learns has learned before; nothing is trained."""
    save_weights: Path | str | None = None
    """Where such a method leaves what it has learned."""
    block: tuple[int, int] | None = None
    """(i, n), to do the i-th of n blocks of the scan alone and leave its results beside the map,
    which is not written. A map of the whole finds them there; its bytes are those of a map that did
    all of it.
    """
    from_map: Path | str | None = None
    """The map of these counts that the row goes on from, where there is one already: that before
    its stage `smooth`, or that of the method whose answers it pools. The answer is that of a map
    without it; its seconds are those of both.
    """


def write(
    config: Config,
    method_id: str,
    counts_path: Path | str,
    map_path: Path | str,
    options: Options | None = None,
) -> None:
    """Map strain by one method of a config, with the stages before and after it, and write the map
    file.

    The map's attributes say method, settings (defaults filled in), what the method found by itself
    and which pixels are bad, seconds of the mapping alone, device, threads, host, processor, peak
    memory in bytes and versions.

    What is finished of a long map is kept beside it, so that the same map goes on after a kill;
    learning is done again. The bytes are those of a map without a break.

    Args:
        config: with the method's settings, and the device.
        method_id: of the entry under `methods:`.
        counts_path: the counts file to read.
        map_path: the map file to write, whole or not at all.
        options: what else the map begins with, or leaves beside it.

    Raises:
        InputError: for an unknown method, unreadable counts, a missing device, weights for a method
            that has none, an answer that `base.check_answer` refuses, a map to go on from where
            nothing does, or a program from outside that fails (`external.run`).
    """
    if method_id not in config.methods:
        raise InputError(unknown("method", method_id, config.methods))
    row = config.methods[method_id]
    write_row(row, method_id, config.device, counts_path, map_path, options)


def write_row(
    entry: Method,
    method_id: str,
    device: Device,
    counts_path: Path | str,
    map_path: Path | str,
    options: Options | None = None,
) -> None:
    """`write` of a row of `methods:` by itself, under an id, on a device: needs no config."""
    options = options or Options()
    if options.block and not entry.by_blocks:
        raise InputError(f"method {method_id} maps whole scans; expected no block")
    stage = entry.smooth
    if stage is None:
        _write(entry, method_id, device, counts_path, map_path, options)
        return
    smooth = import_module("ccstae.methods.neighbours.smooth")
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        before = options.from_map
        if before is None:
            before = Path(folder) / "map.h5"
            _write(entry, method_id, device, counts_path, before, options)
        answer = read_map(before, scan_shape(counts_path))
    smoothed = smooth.smoothed(answer, stage, calibration_of(counts_path).rotational_symmetry)
    write_map(map_path, replace(smoothed, attributes=smoothed.attributes | {"method": method_id}))


def _write(
    entry: Method,
    method_id: str,
    wanted: Device,
    counts_path: Path | str,
    map_path: Path | str,
    options: Options,
) -> None:
    """`write_row` without the stage after the method."""
    name = entry.method or method_id
    weights, from_map = options.weights, options.from_map
    if from_map is not None and (entry.command or methods.goes_on_from(name) is None):
        raise InputError(
            f"methods.{method_id}: goes on from no other map; expected a stage `smooth`, or a "
            f"method that pools"
        )
    denoise = _denoise(entry, method_id)
    if entry.command is not None:
        if weights or options.save_weights:
            raise InputError(
                f"method {method_id} is a program from outside; its weights are its own affair"
            )
        external.run(method_id, entry, counts_path, map_path, denoise)
        return
    method = base.load(name)
    map_strain = method.map_strain
    if from_map is not None:
        map_strain = _going_on(method_id, method, from_map)
    elif weights or options.save_weights:
        map_strain = _with_weights(name, method, weights, options.save_weights)
    settings = checked_settings(name, entry.settings, f"methods.{method_id}.settings")
    assert isinstance(settings, MethodSettings)
    device = resolve(settings.device or wanted)
    counts = read_counts(counts_path)
    found = {"bad_pixels": counts.bad_pixels} if counts.bad_pixels else {}
    map_path = Path(map_path)
    try:
        with keeping(
            map_path.with_name(f".{map_path.name}.finished"),
            lambda: _identity(name, entry, settings, counts_path, weights, device),
            options.block,
        ) as kept:
            begun = time.perf_counter()
            if denoise is not None:
                counts = denoise(counts)
            answer, used = within_memory(
                f"method {name}", lambda on: map_strain(counts, settings, on), device
            )
            seconds = kept.seconds_before + time.perf_counter() - begun
    except BlockDone:
        return
    if options.block:
        return
    base.check_answer(answer, counts.scan, name)
    answer = in_sample_frame(refuse_mirrored(answer, counts.calibration), counts.calibration)
    found |= answer.found
    attributes = {
        "method": method_id,
        "settings": json.dumps(settings.model_dump(mode="json")),
        "found": json.dumps(found),
        "step_A": counts.calibration.step_A,
        "rotational_symmetry": counts.calibration.rotational_symmetry,
        **said_of_frame(counts.calibration),
        "seconds": seconds,
        "device": used,
        "threads": _threads(),
        "host": host.NAME,
        "processor": host.cpu_model(),
        "peak_memory_bytes": peak_memory_bytes(device),
        "versions": json.dumps(versions()),
    }
    if from_map is not None:
        before = read_map(from_map).attributes
        attributes["seconds"] = seconds + float(before["seconds"])
        peak = int(before.get("peak_memory_bytes", 0))
        attributes["peak_memory_bytes"] = max(peak_memory_bytes(device), peak)
    if weights:
        attributes["weights"] = str(weights)
    if entry.denoise is not None:
        attributes["denoise"] = json.dumps(entry.denoise.model_dump(mode="json"))
    write_map(
        map_path,
        Map(
            answer.F,
            attributes,
            answer.covariance,
            answer.label,
            answer.centre_px,
            answer.dictionary,
            answer.residual,
            F_per_pattern=answer.F_per_pattern,
            covariance_per_pattern=answer.covariance_per_pattern,
            alone=answer.alone,
        ),
    )
    base.tell(counts_path, found)


def _identity(
    method: str,
    entry: Method,
    settings: MethodSettings,
    counts_path: Path | str,
    weights: Path | str | None,
    device: str,
) -> str:
    """All that a map depends on: method and its sources, settings, files, machine and versions."""
    files = [Path(path).resolve() for path in (counts_path, weights) if path]
    sources = [Path(path).read_text() for path in made_from(modules()[method])]
    return json.dumps(
        {
            "method": method,
            "settings": settings.model_dump(mode="json"),
            "denoise": entry.denoise and entry.denoise.model_dump(mode="json"),
            "files": [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files],
            "sources": hashlib.sha256("\0".join(sources).encode()).hexdigest(),
            "device": device,
            "threads": _threads(),
            "processor": host.cpu_model(),
            "versions": versions(),
        }
    )


def _denoise(entry: Method, method_id: str) -> Callable[[Counts], Counts] | None:
    """The stage before a method, where it has one."""
    if entry.denoise is None:
        return None
    module = import_module("ccstae.methods.neighbours.denoise")
    return partial(module.denoised, stage=entry.denoise, method_id=method_id)


def _with_weights(
    name: str, method: ModuleType, weights: Path | str | None, save: Path | str | None
) -> Callable[..., base.Answer]:
    """`map_strain` of a method that takes what it has learned from the file `weights`, where given,
    and leaves it in `save`, where given.

    InputError for a method that keeps nothing, and where there is nothing to keep.
    """
    if not hasattr(method, "learn"):
        raise InputError(f"method {name} has no weights; expected one that learns, like ccstae")

    def map_strain(counts: Counts, settings: MethodSettings, device: str) -> base.Answer:
        model = (
            method.load(weights, counts, settings, device)
            if weights
            else method.learn(counts, settings, device)
        )
        if model is None:
            raise InputError(
                f"{counts.path}: no pattern holds a lattice; expected a scan to learn from"
            )
        if save:
            method.save(save, model)
        answer: base.Answer = method.apply(model, counts, device)
        return answer

    return map_strain


def _going_on(method_id: str, method: ModuleType, path: Path | str) -> Callable[..., base.Answer]:
    """`map_strain` of a method that goes on from a map of the same counts.

    InputError where the map was made with other settings.
    """

    def map_strain(counts: Counts, settings: MethodSettings, device: str) -> base.Answer:
        before = read_map(path, counts.scan)
        wanted = json.dumps(settings.model_dump(mode="json"))
        if before.attributes["settings"] != wanted:
            raise InputError(
                f"{path}: has the settings {before.attributes['settings']}; expected a map with "
                f"those of {method_id}, {wanted}"
            )
        found = json.loads(before.attributes.get("found", "{}"))
        answer = base.Answer(
            F=before.F,
            covariance=before.covariance,
            label=before.label,
            centre_px=before.centre_px,
            dictionary=before.dictionary,
            residual=before.residual,
            alone=read_alone(path),
            # that is said of the answer, and asked of the new one again
            found={key: value for key, value in found.items() if key != "mirrored"},
        )
        gone_on: base.Answer = method.go_on(answer, counts.calibration, settings)
        return gone_on

    return map_strain


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, by the name of the package."""
    return {
        "ccstae": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", "torch")},
    }


def peak_memory_bytes(device: str) -> int:
    """Largest resident memory of this process so far. Where `device` is "cuda", the largest that
    torch held on the GPU is added to it.
    """
    unit = (
        1 if sys.platform == "darwin" else 1024
    )  # getrusage counts kibibytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device == "cuda":
        import torch

        peak += torch.cuda.max_memory_allocated()
    return int(peak)


def _threads() -> int:
    torch = sys.modules.get("torch")  # a method that does without it runs on one
    return torch.get_num_threads() if torch else 1
