"""Windows and box sums against numpy and scipy, at the border and beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from ccstae.methods.shared import beams, windows


@pytest.mark.parametrize(
    ("height", "width", "half"), [(20, 31, 4), (31, 20, 0), (9, 12, 7), (12, 9, 3)]
)
def test_windows_are_those_of_the_pattern_with_its_border_repeated(
    height: int, width: int, half: int
) -> None:
    rng = np.random.default_rng(0)
    patterns = rng.random((3, height, width)).astype(np.float32)
    at = rng.uniform(-12, (width + 12, height + 12), (3, 50, 2))
    at[0, 0] = np.nan  # read as 0
    values, dx, dy = windows.cut(torch.from_numpy(patterns), torch.from_numpy(at), half)
    assert values.dtype == dx.dtype == dy.dtype == torch.float32
    far = 24 + half
    wide = np.pad(patterns, ((0, 0), (far, far), (far, far)), mode="edge")
    for b, s in np.ndindex(3, 50):
        x, y = np.rint(np.nan_to_num(at[b, s])).astype(int)
        expected = wide[b, far + y - half : far + y + half + 1, far + x - half : far + x + half + 1]
        np.testing.assert_array_equal(values[b, s], expected)
        np.testing.assert_allclose(
            dx[b, s, 0], x + np.arange(-half, half + 1) - at[b, s, 0], atol=1e-6
        )
        np.testing.assert_allclose(
            dy[b, s, :, 0], y + np.arange(-half, half + 1) - at[b, s, 1], atol=1e-6
        )


@pytest.mark.parametrize("radius", [0.5, 2.0, 3.4, 5.5, 9.0])
def test_box_sums_of_counts_are_exact(radius: float) -> None:
    patterns = np.random.default_rng(1).poisson(1000, (5, 24, 40)).astype(np.float32)
    n = 2 * round((radius * math.sqrt(math.pi) - 1) / 2) + 1
    expected = (
        ndimage.uniform_filter(patterns.astype(np.float64), (0, n, n), mode="constant") * n**2
    )
    found = beams.box_sums(torch.from_numpy(patterns), radius)
    np.testing.assert_array_equal(found, np.rint(expected))


def test_pieces_give_what_the_whole_gives() -> None:
    patterns = torch.rand(70, 128, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        windows.piecewise(torch.fft.rfft2, patterns),
        torch.fft.rfft2(patterns),
        rtol=1e-5,
        atol=1e-4,
    )
