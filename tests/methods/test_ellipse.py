"""The conic through two rings, against exact lattices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.methods.ellipse import method
from ccstae.methods.shared.lattice_sites import nodes, rings

MODEL = Model()


def disks(F: np.ndarray, centre: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exact positions of the twelve nearest disks, their nodes, and the nominal lattice in px."""
    calibration = MODEL.counts(np.eye(2)[None, None], 1e3).calibration
    hk = nodes(calibration, (1, 1, MODEL.px, MODEL.px))
    hk = hk[rings(calibration, hk) < 2]
    nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A)
    G = torch.from_numpy(geometry.inverse_transpose(F)) @ nominal
    at = torch.from_numpy(centre)[:, None] + torch.einsum("nij,sj->nsi", G, hk.double())
    return at, hk, nominal


def test_an_exact_lattice_gives_its_deformation() -> None:
    F = random_deformations((5, 4)).reshape(-1, 2, 2)
    centre = np.random.default_rng(0).normal(64, 0.5, (len(F), 2))
    at, hk, nominal = disks(F, centre)
    assert len(hk) == 12
    found = method.fit(at, torch.ones(at.shape[:2]), torch.from_numpy(centre), hk, nominal)
    G = found.G.numpy()
    np.testing.assert_allclose(
        geometry.deformation_from_reciprocal(G, nominal.numpy()), F, rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(found.centre.numpy(), centre, atol=1e-9)


def test_few_disks_are_no_ellipse() -> None:
    at, hk, nominal = disks(np.eye(2)[None], np.full((1, 2), 64.0))
    weights = torch.ones(at.shape[:2])
    weights[:, 5:] = 0
    found = method.fit(at, weights, torch.full((1, 2), 64.0).double(), hk, nominal)
    assert torch.isnan(found.G).all()


@pytest.mark.parametrize("name", ["none", "intensity"])
def test_noise_of_a_disk_moves_the_answer_by_what_the_lattice_fit_would_say(name: str) -> None:
    """No estimator without bias from twelve disks is better than the lattice fit to all of them."""
    draw = np.random.default_rng(2)
    F = np.broadcast_to(np.eye(2), (4000, 2, 2))
    at, hk, nominal = disks(F, np.full((len(F), 2), 64.0))
    noisy = at + torch.from_numpy(draw.normal(0, 0.05, at.shape))
    weights = torch.ones(at.shape[:2]) * (1.0 if name == "none" else 30.0)
    found = method.fit(noisy, weights, torch.full((len(F), 2), 64.0).double(), hk, nominal)
    error = geometry.components(
        geometry.deformation_from_reciprocal(found.G.numpy(), nominal.numpy())
    )
    g = (hk.double() @ nominal.T).numpy()
    least = 0.05 / np.sqrt((g**2).sum() / 2)  # of a component of M
    assert least < error[:, 0].std() < 2.5 * least
    assert np.abs(error.mean(0)).max() < 0.05 * least + 4 * error.std() / np.sqrt(len(F))
