"""A map that is killed goes on where it stopped, with the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import yaml
from synthetic import Model, random_deformations

from ccstae.config.run import Config, parse
from ccstae.io.counts import write_counts
from ccstae.machine import device, finished, host
from ccstae.methods import run
from ccstae.methods.shared import windows

MODEL = Model(px=96)
CONFIG = """
name: finished
microscope: {detector_px: 96}
materials: {A: &A {prototype: mx2-2h, species: [W, S], a_A: 3.153}, B: *A}
scenes: {one: {kind: heterostructure, materials: [A, B]}}
noise: {one: {electrons: 100}}
methods:
  com: {settings: {weights: information}}
  ccstae:
"""


def write(path: Path) -> Path:
    """Counts of a small scan, in a file."""
    made = MODEL.counts(random_deformations((4, 8)), 3e4, 0.25)
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    return path


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    return write(tmp_path / "counts.h5")


def in_small_parts(patch: pytest.MonkeyPatch) -> None:
    """Five patterns to a part, each of which is kept at once."""
    patch.setattr(device, "_division", 25)
    patch.setattr(windows, "chunk_size", lambda shape, device: 5)
    patch.setattr(finished, "INTERVAL_S", 0.0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_parts(monkeypatch)


def parsed(text: str) -> Config:
    return parse(yaml.safe_load(text))


class Killed(BaseException):
    """What no code expects, as a kill."""


def done_until(
    parts: int,
    monkeypatch: pytest.MonkeyPatch,
    config: Config,
    method: str,
    *paths: Path,
    block: tuple[int, int] | None = None,
) -> int:
    """Map until so many parts are done anew; how many were."""
    done = 0
    keep = finished.Store.keep

    def counted(self: finished.Store, name: str, result: Any) -> None:
        nonlocal done
        keep(self, name, result)
        done += 1
        if done == parts:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(finished.Store, "keep", counted)
        try:
            run.write(config, method, *paths, run.Options(block=block))
        except Killed:
            assert parts == done
    return done


def arrays(path: Path) -> dict[str, bytes]:
    found = {}

    def keep(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[...].tobytes()

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


@dataclass(frozen=True)
class Whole:
    """A map that nothing broke off."""

    method: str
    parts: int
    arrays: dict[str, bytes]


@pytest.fixture(scope="module", params=["com", "ccstae"])
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    paths = write(folder / "counts.h5"), folder / "map.h5"
    with pytest.MonkeyPatch.context() as patch:
        in_small_parts(patch)
        parts = done_until(-1, patch, parsed(CONFIG), request.param, *paths)
    return Whole(request.param, parts, arrays(paths[1]))


def test_a_killed_map_goes_on_with_the_same_bytes(
    unbroken: Whole, counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, map_path = parsed(CONFIG), tmp_path / "map.h5"
    method, whole = unbroken.method, unbroken.parts
    assert whole >= 6
    left = tmp_path / ".map.h5.finished"
    done_until(3, monkeypatch, config, method, counts, map_path)
    assert not map_path.exists()
    assert len(list(left.glob("*/*.parts"))) == 3
    assert done_until(-1, monkeypatch, config, method, counts, map_path) == whole - 3
    assert arrays(map_path) == unbroken.arrays
    assert not left.exists()


def test_blocks_that_several_processes_map_are_put_together(
    unbroken: Whole, counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, map_path = parsed(CONFIG), tmp_path / "map.h5"
    method = unbroken.method
    done = [
        done_until(-1, monkeypatch, config, method, counts, map_path, block=(block, 3))
        for block in (2, 3, 1)
    ]
    assert sum(done) == unbroken.parts
    assert min(done) > 0
    assert not map_path.exists()
    assert done_until(-1, monkeypatch, config, method, counts, map_path) == 0
    assert arrays(map_path) == unbroken.arrays
    assert not (tmp_path / ".map.h5.finished").exists()
    with h5py.File(map_path) as file:
        assert file.attrs["host"] == host.NAME
        assert file.attrs["processor"] == host.cpu_model()


@pytest.mark.parametrize("change", ["settings", "counts", "source"])
def test_what_another_map_left_is_not_used(
    change: str, counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, map_path = parsed(CONFIG), tmp_path / "map.h5"
    whole = done_until(-1, monkeypatch, config, "com", counts, tmp_path / "whole.h5")
    done_until(3, monkeypatch, config, "com", counts, map_path)
    if change == "settings":
        config = parsed(CONFIG.replace("weights: information", "iterations: 2"))
    elif change == "counts":
        with h5py.File(counts, "r+") as file:
            file["counts"][0, 0, 0, 0] += 1
    else:
        monkeypatch.setattr(run, "made_from", lambda module: [__file__])
    assert done_until(-1, monkeypatch, config, "com", counts, map_path) == whole
    assert not (tmp_path / ".map.h5.finished").exists()


def test_nothing_is_left_of_what_takes_no_time(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "INTERVAL_S", 60.0)
    done_until(3, monkeypatch, parsed(CONFIG), "com", counts, tmp_path / "map.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counts.h5"]


def test_what_is_kept_holds_tensors_alone(tmp_path: Path) -> None:
    """Kept results run no code when they are read."""
    store = finished.Store(tmp_path, lambda: "me", None)
    store.keep("0.0", Path("not a tensor"))
    with (
        finished.keeping(tmp_path, lambda: "me"),
        pytest.raises(Exception, match=r"Weights only load failed"),
    ):
        finished.once(lambda part: torch.zeros(1), 1, (), "cpu")
