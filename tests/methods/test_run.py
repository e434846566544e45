"""Running methods: the registry, the map file they end in, and another processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from programs import configured

from ccstae.config.methods import settings
from ccstae.config.run import Config, dump
from ccstae.errors import InputError
from ccstae.io.maps import read_map
from ccstae.methods import base, run


def test_an_unknown_method_is_refused_with_the_nearest_name(
    tmp_path: Path, counts_path: Path
) -> None:
    with pytest.raises(InputError, match="'temlate'; did you mean 'template'"):
        run.write(configured({"template": {}}), "temlate", counts_path, tmp_path / "map.h5")
    with pytest.raises(InputError, match="did you mean 'zero'"):
        base.load("zer")


@pytest.mark.parametrize("method", ["zero", "com", "template"])
def test_a_map_says_how_it_was_made(method: str, tmp_path: Path, counts_path: Path) -> None:
    run.write(configured({"mine": {"method": method}}), "mine", counts_path, tmp_path / "map.h5")
    answer = read_map(tmp_path / "map.h5", (2, 3))
    assert np.isfinite(answer.F).all()
    assert answer.attributes["method"] == "mine"
    assert answer.attributes["device"] == "cpu"
    assert answer.attributes["threads"] == torch.get_num_threads()
    assert 0 < answer.attributes["seconds"] < 60
    assert 2**24 < answer.attributes["peak_memory_bytes"] < 2**35
    assert json.loads(answer.attributes["versions"])["torch"] == torch.__version__
    assert json.loads(answer.attributes["settings"]) == settings(method)().model_dump(mode="json")


# How another processor computes: no wide vectors, other sums. Counts do not change; methods stay
# within 1e-4, far below the bound.
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL "
    "AVX2 FMA3",
}


@pytest.fixture(scope="module")
def mapped_there(
    tmp_path_factory: pytest.TempPathFactory, counts_path: Path
) -> tuple[Config, Path]:
    """A config, and the folder of the maps that its methods make on another processor."""
    folder = tmp_path_factory.mktemp("there")
    made = configured({"com": {}, "template": {}, "ccstae": {}})
    (folder / "config.yaml").write_text(dump(made))
    program = (
        "import sys; from ccstae.config.run import read; from ccstae.methods import run;"
        "made = read('config.yaml');"
        "[run.write(made, name, sys.argv[1], f'{name}.h5') for name in made.methods]"
    )
    words = [sys.executable, "-c", program, str(counts_path)]
    subprocess.run(words, cwd=folder, env=os.environ | PLAIN, check=True, capture_output=True)
    return made, folder


@pytest.mark.parametrize("method", ["com", "template", "ccstae"])
def test_another_processor_gives_nearly_the_same_map(
    method: str, tmp_path: Path, counts_path: Path, mapped_there: tuple[Config, Path]
) -> None:
    made, there = mapped_there
    run.write(made, method, counts_path, tmp_path / "here.h5")
    here = read_map(tmp_path / "here.h5").F
    assert np.abs(here - read_map(there / f"{method}.h5").F).max() < 1e-4


def test_another_processor_draws_the_same_counts() -> None:
    drawn = (
        "import hashlib, numpy as np; from ccstae.simulation import noise; from ccstae.config.run "
        "import Level;"
        " y, x = np.mgrid[-32:32, -32:32];"
        "pattern = np.exp(-np.hypot(x, y) / 5); level = Level(background=0.25, electrons=1e5);"
        "print(hashlib.sha256(np.stack([noise.pattern_counts(pattern, level, 1, 'a', i) for i in "
        "range(20)])).hexdigest())"
    )
    here, there = (
        subprocess.run(
            [sys.executable, "-c", drawn],
            env=os.environ | extra,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for extra in ({}, PLAIN)
    )
    assert here == there


def test_zero_is_no_strain_everywhere(tmp_path: Path, counts_path: Path) -> None:
    run.write(configured({"zero": {}}), "zero", counts_path, tmp_path / "map.h5")
    np.testing.assert_array_equal(
        read_map(tmp_path / "map.h5").F, np.broadcast_to(np.eye(2), (2, 3, 2, 2))
    )


@pytest.mark.parametrize(
    ("F", "said"),
    [(np.zeros((3, 2, 2, 2)), "shape"), (np.full((2, 3, 2, 2), np.inf), "infinities")],
)
def test_an_answer_outside_the_contract_is_refused(
    F: np.ndarray, said: str, tmp_path: Path, counts_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SimpleNamespace(map_strain=lambda counts, settings, device: base.Answer(F))
    monkeypatch.setattr(base, "load", lambda name: method)
    with pytest.raises(InputError, match=said):
        run.write(configured({"zero": {}}), "zero", counts_path, tmp_path / "map.h5")
    assert list(tmp_path.iterdir()) == []
