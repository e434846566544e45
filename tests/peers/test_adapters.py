"""Every peer's adapter gives the right F in its own environment; skipped where that is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccstae import geometry
from ccstae.config.run import load
from ccstae.io.counts import write_counts
from ccstae.io.maps import read_map
from ccstae.methods import external

ROOT = Path(__file__).parents[2]
from synthetic import Model, errors, random_deformations  # noqa: E402

MODEL = Model()
PEERS = {
    name: entry
    for config in ("peers.yaml", "slow-peers.yaml")
    for name, entry in load(ROOT / "config" / config).methods.items()
    if entry.environment
}

# Their positions are off alike in all patterns, by up to 1 % of a lattice vector: a peak of the
# cepstrum stands on a slope towards the middle, and the network has a bias of its own. What they
# tell against a reference is held to the bound of the others.
AGAINST_A_REFERENCE = ("singleorigin", "tempo4d")


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_finds_known_deformations(
    peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    state = external.interpreter(str(PEERS[peer].environment))
    python = state.read_text().strip() if state.is_file() else "never made"
    if not Path(python).is_file():
        pytest.skip(f"{peer}'s environment: {python}; `make peers` makes it")
    truth = geometry.deformation(0.01, -0.005, 0.004, 0.3) @ random_deformations(
        (2, 3), 0.01, 0.01
    )  # far from the nominal orientation
    made = MODEL.counts(truth, 1e7)
    write_counts(
        tmp_path / "counts.h5", made.counts, made.counts.shape, made.calibration, made.probe
    )
    external.run(peer, PEERS[peer], tmp_path / "counts.h5", tmp_path / "map.h5")
    answer = read_map(tmp_path / "map.h5", (2, 3))
    assert "error" not in answer.attributes, answer.attributes["error"]
    exact = geometry.regauge(truth, np.ones((2, 3), bool))
    if peer in AGAINST_A_REFERENCE:
        F = geometry.regauge(answer.F, np.ones((2, 3), bool))
        assert np.abs(errors(F, exact)).max() < 5e-3
        assert np.abs(errors(answer.F, truth)).max() < 15e-3
    else:
        assert np.abs(errors(answer.F, truth)).max() < 5e-3
    if (
        answer.own_strain is not None
    ):  # signs and axes of its own formula; that is linear, or nearly
        own = geometry.deformation(*np.moveaxis(answer.own_strain, -1, 0))
        assert np.abs(errors(geometry.regauge(own, np.ones((2, 3), bool)), exact)).max() < 5e-3
