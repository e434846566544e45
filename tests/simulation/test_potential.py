"""The transmission function against the sum over atoms that defines it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization

from ccstae.simulation import potential


@pytest.mark.parametrize(
    ("shape", "refine"),
    [((60, 48), 1), ((64, 40), 2), ((40, 54), 4), ((330, 40), 1)],
    ids=["coarse", "half", "fine", "many rows"],
)
def test_atoms_lie_where_they_are(shape: tuple[int, int], refine: int) -> None:
    """exp(i sigma V) of V(k) = sum_j f_j(k) exp(-2 pi i k x_j) in double precision, band
    limited."""
    sampling_A, thermal_A = 0.2, {"S": 0.08}
    fine = (shape[0] * refine, shape[1] * refine)
    step = sampling_A / refine
    extent = np.array(shape[::-1]) * sampling_A
    at = np.random.default_rng(1).uniform(0, extent, (12, 2))
    at[0], at[1], at[2] = (
        (0, 0),
        extent - 1e-9,
        (0.4 * step, extent[1] - 0.6 * step),
    )  # kernels across the edges
    numbers = np.array([16, 74] * 6)
    ky, kx = (np.fft.fftfreq(n, step) for n in fine)
    q2 = ky[:, None] ** 2 + kx**2
    V = np.zeros(fine, complex)
    for number, symbol in ((16, "S"), (74, "W")):
        own = at[numbers == number]
        wave_y, wave_x = (
            np.exp(-2j * np.pi * np.outer(k, x)) for k, x in ((ky, own[:, 1]), (kx, own[:, 0]))
        )
        factor = LobatoParametrization().projected_scattering_factor(symbol)(q2)  # type: ignore[misc]
        V += (
            factor
            * np.exp(-2 * np.pi**2 * thermal_A.get(symbol, 0.0) ** 2 * q2)
            * (wave_y @ wave_x.T)
        )
    kept = [np.abs(k) * step < 0.41 for k in (ky, kx)]
    phase = energy2sigma(80e3) * np.fft.ifft2(V * kept[0][:, None] * kept[1]).real / step**2
    low = [np.rint(np.fft.fftfreq(n) * n).astype(int) for n in shape]
    exact = np.fft.ifft2(np.fft.fft2(np.exp(1j * phase))[np.ix_(*low)]) / refine**2
    found = potential.transmission(at, numbers, shape, sampling_A, refine, 80, thermal_A).numpy()
    assert np.abs(found - exact).max() < 2e-5
    assert np.abs(np.angle(exact)).max() > 1


def test_blocks_make_one_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that is built in blocks is the same as one that is built at once, seams and opposite
    edges included.
    """
    shape, sampling_A = (200, 144), 0.5
    at = np.random.default_rng(2).uniform(0, np.array(shape[::-1]) * sampling_A, (1500, 2))
    numbers = np.random.default_rng(3).choice([16, 74], 1500)
    build = partial(
        potential.transmission, at, numbers, shape, sampling_A, 8, 80.0, {"S": 0.08, "W": 0.08}
    )
    whole = build()
    monkeypatch.setattr(potential, "_MAX_BLOCK", 900)
    found = build()
    assert [len(potential._blocks(n, 900 // 8, 16, 2)) for n in shape] == [3, 2]
    assert (found - whole).abs().max() < 1e-4
    assert (found - whole).abs().square().mean().sqrt() < 1e-5


def test_the_grid_is_fine_enough() -> None:
    """Of vibrating atoms, half the sampling changes nothing: what their phases hold of higher
    frequencies is not missed.
    """
    at, numbers = np.random.default_rng(4).uniform(0, 16, (60, 2)), np.array([16, 74, 34] * 20)
    thermal_A = {"S": 0.08, "W": 0.08, "Se": 0.08}
    coarse, fine = (
        potential.transmission(at, numbers, (32, 32), 0.5, refine, 80, thermal_A)
        for refine in (8, 16)
    )
    assert (coarse - fine).abs().max() < 1e-5
