"""Learning once, mapping often: kept weights give the same answer, and files that do not fit are
refused in one line.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from good_config import run
from safetensors.torch import load_file, save_file
from synthetic import Model, errors, random_deformations

import ccstae as package
from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io import weights
from ccstae.io.counts import Counts, write_counts
from ccstae.io.maps import read_map
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae import trained
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae_pooled import method as ccstae_pooled

MODEL = Model()
SCAN = (8, 9)
SETTINGS = CcstaeSettings()


def scan(
    seed: int, electrons: float = 1e5, background: float = 0.25, rotation: float = 0.0
) -> tuple[np.ndarray, Counts]:
    """F (8, 9, 2, 2), and counts with a row of vacuum."""
    vacuum = np.zeros(SCAN, bool)
    vacuum[0] = True
    F = geometry.rotation_matrix(np.asarray(rotation)) @ random_deformations(SCAN, seed=seed)
    return F, MODEL.counts(F, electrons, background, vacuum, seed=seed)


@pytest.fixture(scope="module")
def first() -> tuple[np.ndarray, Counts]:
    return scan(1)


@pytest.fixture(scope="module")
def learned(first: tuple[np.ndarray, Counts]) -> trained.Trained:
    model = ccstae.learn(first[1], SETTINGS, "cpu")
    assert model is not None
    return model


@pytest.fixture(scope="module")
def kept(learned: trained.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "learned.safetensors"
    ccstae.save(path, learned)
    return path


def rmse(answer: Any, F: np.ndarray) -> np.ndarray:
    return np.sqrt((errors(answer.F, F)[1:] ** 2).mean((0, 1)))


def test_kept_weights_give_the_same_answer_to_the_bit(
    first: Any, learned: trained.Trained, kept: Path, tmp_path: Path
) -> None:
    _, counts = first
    again = ccstae.load(kept, counts, SETTINGS, "cpu")
    one, other = ccstae.apply(learned, counts, "cpu"), ccstae.apply(again, counts, "cpu")
    straight = ccstae.map_strain(counts, SETTINGS, "cpu")
    for field in ("F", "covariance", "label", "centre_px", "dictionary"):
        assert (
            getattr(one, field).tobytes()
            == getattr(other, field).tobytes()
            == getattr(straight, field).tobytes()
        ), field
    ccstae.save(tmp_path / "again.safetensors", again)
    assert (tmp_path / "again.safetensors").read_bytes() == kept.read_bytes()


def test_another_scan_needs_no_training(
    learned: trained.Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    F, counts = scan(2)
    trained_on_it = rmse(ccstae.map_strain(counts, SETTINGS, "cpu"), F)
    monkeypatch.setattr(ccstae.encoders, "train", None)
    monkeypatch.setattr(ccstae.SiteFinder, "learn", None)
    answer = ccstae.apply(learned, counts, "cpu")
    assert np.isnan(answer.F[0]).all()
    assert np.isfinite(answer.F[1:]).all()
    np.testing.assert_allclose(rmse(answer, F), trained_on_it, rtol=0.05)


def test_another_dose_and_orientation_are_within_its_reach(learned: trained.Trained) -> None:
    F, counts = scan(3, electrons=3e4, rotation=0.4)
    answer = ccstae.apply(learned, counts, "cpu")
    assert np.isnan(answer.F[0]).all()
    np.testing.assert_allclose(
        rmse(answer, F), rmse(ccstae.map_strain(counts, SETTINGS, "cpu"), F), rtol=0.1
    )
    sigma = np.sqrt(np.diagonal(answer.covariance[1:], axis1=-2, axis2=-1))
    assert 0.9 < (np.abs(errors(answer.F, F)[1:]) < 1.96 * sigma).mean() < 0.99


def test_neighbours_use_the_same_weights(first: Any, kept: Path) -> None:
    _, counts = first
    straight = ccstae_pooled.map_strain(counts, SETTINGS, "cpu")
    answer = ccstae_pooled.apply(ccstae_pooled.load(kept, counts, SETTINGS, "cpu"), counts, "cpu")
    assert answer.F.tobytes() == straight.F.tobytes()


def changed(
    kept: Path, path: Path, about: dict[str, Any] | None = None, **tensors: torch.Tensor | None
) -> Path:
    """A copy of the weights with other tensors (None: without) and other entries of what is told
    about them.
    """
    with open(kept, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    told = json.loads(header["__metadata__"]["ccstae"]) | (about or {})
    found = load_file(kept) | {name.replace("__", "."): value for name, value in tensors.items()}
    save_file(
        {name: value for name, value in found.items() if value is not None},
        path,
        {"ccstae": json.dumps(told)},
    )
    return path


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "other format": (
        {"format": 99, "version": "9.9"},
        {},
        f"weights of format 99, written by ccstae '9.9'; expected format {weights.FORMAT}",
    ),
    "other method": (
        {"method": "ccstae-2023"},
        {},
        "weights of the method 'ccstae-2023'; expected those of 'ccstae'",
    ),
    "other settings": (
        {"settings": {"seed": 7, "transformer": "rigid", "without": []}},
        {},
        "learned with other settings (seed 7, here 0);",
    ),
    "no settings": (
        {"settings": "none"},
        {},
        "learned with other settings (seed None, here 0; transformer None",
    ),
    "other instrument": (
        {"instrument": {"detector_px": [64, 64]}},
        {},
        "detector_px is [128, 128], the weights were learned at [64, 64]",
    ),
    "no instrument": (
        {"instrument": "none"},
        {},
        "detector_px is [128, 128], the weights were learned at None",
    ),
    "dose not a number": (
        {"electrons": "many"},
        {},
        "electrons is 'many'; expected a finite number",
    ),
    "no dose": ({"electrons": 0}, {}, "electrons is 0"),
    "infinite floor": ({"floor": float("inf")}, {}, "floor is inf"),
    "no disk": ({}, {"dictionary__disk": None}, "no tensor dictionary.disk"),
    "another shape": (
        {},
        {"dictionary__disk": torch.ones(3, 3)},
        "tensor dictionary.disk of shape (3, 3)",
    ),
    "another kind": (
        {},
        {"dictionary__spread": torch.ones(37, dtype=torch.int8)},
        "tensor dictionary.spread",
    ),
    "not finite": (
        {},
        {"encoder__net.0.bias": torch.full((64,), torch.nan)},
        "tensor encoder.net.0.bias",
    ),
    "negative": (
        {},
        {"dictionary__background": -torch.ones(400)},
        "tensor dictionary.background",
    ),
    "beam far away": (
        {},
        {"dictionary__centre_px": torch.full((2,), 1e9, dtype=torch.float64)},
        "tensor dictionary.centre_px",
    ),
    "stray not a number": ({"stray_px": None}, {}, "stray_px is None"),
    "no disks": ({}, {"dictionary__g": torch.zeros(0, 2)}, "tensor dictionary.g"),
    "many entries": (
        {},
        {"dictionary__intensity": torch.ones(1000, 37)},
        "tensor dictionary.intensity",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_weights_that_do_not_fit_are_refused(
    case: str, first: Any, kept: Path, tmp_path: Path
) -> None:
    about, tensors, said = HOSTILE[case]
    path = changed(kept, tmp_path / "bad.safetensors", about, **tensors)
    with pytest.raises(InputError) as caught:
        ccstae.load(path, first[1], SETTINGS, "cpu")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_weights_are_refused(first: Any, kept: Path, tmp_path: Path) -> None:
    whole = kept.read_bytes()
    files = {
        "truncated": whole[:-100],
        "header alone": whole[:4000],
        "empty": b"",
        "huge header": struct.pack("<Q", 2**62) + whole[8:],
        "text": b"not weights at all",
        "nested": struct.pack("<Q", 100_000) + b"[" * 100_000,
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            ccstae.load(path, first[1], SETTINGS, "cpu")
    save_file({"w": torch.ones(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="not weights of ccstae"):
        ccstae.load(tmp_path / "other.safetensors", first[1], SETTINGS, "cpu")
    with pytest.raises(InputError, match="no such file"):
        ccstae.load(tmp_path / "missing.safetensors", first[1], SETTINGS, "cpu")


def test_weights_of_another_version_of_the_package_are_read_and_that_is_said(
    first: Any, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ccstae.load(kept, first[1], SETTINGS, "cpu")
    assert capsys.readouterr().err == ""
    ccstae.load(
        changed(kept, tmp_path / "old.safetensors", {"version": "0.0.1"}), first[1], SETTINGS, "cpu"
    )
    assert (
        f"weights learned by ccstae '0.0.1'; this is {package.__version__}"
        in capsys.readouterr().err
    )


def test_a_scan_that_holds_no_lattice_teaches_nothing() -> None:
    counts = MODEL.counts(
        np.broadcast_to(np.eye(2), (4, 4, 2, 2)), 1e5, vacuum=np.ones((4, 4), bool)
    )
    assert ccstae.learn(counts, SETTINGS, "cpu") is None


CONFIG = """
name: made
device: cpu
materials:
  WS2: {prototype: mx2-2h, species: [W, S], a_A: 3.153}
  WSe2: {prototype: mx2-2h, species: [W, Se], a_A: 3.282}
scenes: {made: {kind: heterostructure, materials: [WS2, WSe2]}}
noise: {dose: {electrons: [1.0e+5]}}
methods: {ccstae: , com: , outside: {command: "true"}}
"""


def test_the_command_line_keeps_weights_and_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mapped(method: str, scan: int, out: str, *words: str) -> int:
        given = ("--counts", f"{scan}.h5", "--out", out, *words)
        return run("map", "config.yaml", method, *given, monkeypatch=monkeypatch)

    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    for seed in (1, 2):
        made = MODEL.counts(random_deformations((4, 6), seed=seed), 1e5, seed=seed)
        write_counts(f"{seed}.h5", made.counts, made.counts.shape, made.calibration, made.probe)
    kept = "kept/weights.safetensors"
    assert mapped("ccstae", 1, "one.h5", "--save-weights", kept) == 0
    for seed in (1, 2):
        assert mapped("ccstae", seed, f"with{seed}.h5", "--weights", kept) == 0
    one, again, other = (read_map(Path(name)) for name in ("one.h5", "with1.h5", "with2.h5"))
    assert one.F.tobytes() == again.F.tobytes()
    assert "weights" not in one.attributes
    assert other.attributes["weights"] == kept
    assert np.abs(errors(other.F, random_deformations((4, 6), seed=2))).max() < 5e-3
    Path("bad.safetensors").write_bytes(b"not weights at all")
    capsys.readouterr()
    for method, weights_file, expected in (
        ("ccstae", "bad.safetensors", "not a readable safetensors file"),
        ("com", kept, "method com has no weights; expected one that learns, like ccstae"),
        ("outside", kept, "is a program from outside"),
    ):
        assert mapped(method, 1, "bad.h5", "--weights", weights_file) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert expected in said.err
        assert len(said.err.splitlines()) == 1
        assert not Path("bad.h5").exists()
