"""The dictionary where the direct beam is off the middle of the detector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts
from ccstae.methods.ccstae import diffuse_background, learn, spline
from ccstae.methods.ccstae import encoder as encoders
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.shared import lattice_sites

MODEL = Model()
TOP, LEFT = 20, 12  # rows and columns cut from a detector with the beam in its middle
CENTRE = (64.0 - LEFT, 64.0 - TOP)
BACKGROUND, ELECTRONS = 0.5, 1e6


def off_the_middle(F: np.ndarray) -> Counts:
    """Counts on a detector without its first rows and columns, with calibration and probe."""
    counts = MODEL.counts(F, ELECTRONS, BACKGROUND)
    return replace(
        counts,
        counts=np.ascontiguousarray(counts.counts[..., TOP:, LEFT:]),
        probe=np.ascontiguousarray(counts.probe[TOP:, LEFT:]),
        good=np.ascontiguousarray(counts.good[TOP:, LEFT:]),
        calibration=replace(counts.calibration, centre_px=CENTRE),
    )


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    F = random_deformations((4, 6))
    counts = off_the_middle(F)
    M = torch.from_numpy(geometry.inverse_transpose(F.reshape(-1, 2, 2))).float()
    return learn.start(
        torch.from_numpy(counts.counts.reshape(-1, *counts.probe.shape).astype(np.float32)),
        encoders.Encoded(M, torch.tensor(CENTRE).expand(len(M), 2)),
        torch.from_numpy(MODEL.G0 / MODEL.pixel_size_inv_A).float(),
        torch.from_numpy(counts.probe),
        counts.calibration.centre_px,
        MODEL.radius_px,
    )


def beam_in_picture(dictionary: Dictionary) -> torch.Tensor:
    """Place (x, y), in detector pixels, of the brightest disk drawn over the background."""
    bare = replace(dictionary, intensity=torch.zeros_like(dictionary.intensity))
    disks = (dictionary.pictures() - bare.pictures())[0]
    y, x = (disks > 0.5 * disks.max()).nonzero().double().mean(0)
    return (torch.stack([x, y]) + 0.5) / spline.OVERSAMPLING - 0.5


def test_the_local_background_of_a_node_is_the_background_there(dictionary: Dictionary) -> None:
    node = dictionary.g + torch.tensor(CENTRE)
    x, y = node.round().long().unbind(1)
    # Each pattern has its beam where one of the nodes lies on a pixel.
    centre = torch.tensor(CENTRE) + node.round() - node
    drawn = diffuse_background.render(dictionary.background, centre, dictionary.detector_px)
    there = drawn[torch.arange(len(node)), y, x]
    assert torch.allclose(dictionary.local_background, there, rtol=0.02)
    true = torch.from_numpy(ELECTRONS * BACKGROUND * MODEL.background[TOP:, LEFT:])
    assert torch.allclose(dictionary.local_background[1:].double(), true[y, x][1:], rtol=0.1)
    assert dictionary.local_background.argmax() == 0


def test_the_beam_of_a_picture_lies_on_the_maximum_of_the_background(
    dictionary: Dictionary,
) -> None:
    drawn = diffuse_background.render(
        dictionary.background, torch.tensor([dictionary.centre_px]), dictionary.detector_px
    )[0]
    row, column = divmod(int(drawn.argmax()), drawn.shape[1])
    assert (column, row) == CENTRE
    beam = beam_in_picture(dictionary)
    assert torch.allclose(beam, torch.tensor(CENTRE).double(), atol=0.05)
    between = (CENTRE[0] + 0.3, CENTRE[1] - 0.4)
    beam = beam_in_picture(replace(dictionary, centre_px=between))
    assert torch.allclose(beam, torch.tensor(between).double(), atol=0.5 / spline.OVERSAMPLING)


def test_disks_in_the_far_corner_belong_to_the_dictionary(dictionary: Dictionary) -> None:
    """Every node on the detector is one of the dictionary's, and of the sites of other methods."""
    height, width = dictionary.detector_px
    nominal = MODEL.G0 / MODEL.pixel_size_inv_A
    hk = geometry.lattice_nodes(nominal, 200.0)
    at = hk @ nominal.T + np.array(CENTRE)
    on = ((at > 3) & (at < np.array([width, height]) - 4)).all(1)
    known = {tuple(g) for g in dictionary.g.double().numpy().round(1)}
    assert {tuple(g) for g in (hk[on] @ nominal.T).round(1)} <= known
    calibration = replace(MODEL.calibration, centre_px=(20.0, 30.0))
    reach = np.hypot(128 - 20, 128 - 30) - disk_radius_px(calibration)
    assert (
        len(lattice_sites.nodes(calibration, (128, 128)))
        == len(geometry.lattice_nodes(nominal, reach)) - 1
    )


@pytest.mark.parametrize("aside_px", [0, 9])
def test_kept_weights_know_where_the_beam_was(tmp_path: Path, aside_px: int) -> None:
    """At its nominal place, or aside of it by more than a disk's radius."""
    counts = off_the_middle(random_deformations((4, 6)))
    nominal = (CENTRE[0] + aside_px, CENTRE[1])
    counts = replace(counts, calibration=replace(counts.calibration, centre_px=nominal))
    settings = CcstaeSettings(without=("encoder", "posterior"))
    model = ccstae.learn(counts, settings, "cpu")
    assert model is not None
    found = model.dictionary.centre_px
    assert found == CENTRE if aside_px == 0 else found == pytest.approx(CENTRE, abs=0.1)
    ccstae.save(tmp_path / "weights.safetensors", model)
    again = ccstae.load(tmp_path / "weights.safetensors", counts, settings, "cpu")
    assert again.dictionary.centre_px == model.dictionary.centre_px
    assert torch.equal(again.dictionary.pictures(), model.dictionary.pictures())
