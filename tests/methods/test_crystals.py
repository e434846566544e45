"""Which entries of a dictionary are of one crystal."""

from types import SimpleNamespace

import numpy as np
import torch

from ccstae.methods.ccstae import crystals


def hexagon(shares: list[list[float]], areas: list[list[float]]) -> SimpleNamespace:
    """Entries over the direct beam, six disks 60 degrees apart, and six at sqrt(3) between them."""
    angle = torch.arange(6) * np.pi / 3
    inner = 20 * torch.stack([angle.cos(), angle.sin()], 1)
    outer = 20 * 3**0.5 * torch.stack([(angle + np.pi / 6).cos(), (angle + np.pi / 6).sin()], 1)
    return SimpleNamespace(
        g=torch.cat([torch.zeros(1, 2), inner, outer]).float(),
        intensity=torch.tensor(shares).float(),
        area=torch.tensor(areas, dtype=torch.float64),
    )


def test_disks_permuted_by_a_turn_of_the_lattice_are_of_one_crystal():
    """Grains turned past half of 60 degrees show the two kinds of inner disks exchanged."""
    one, turned = [0.8, 1.3] * 3 + [1.2] * 6, [1.3, 0.8] * 3 + [1.2] * 6
    other = [1.05, 1.05] * 3 + [1.2] * 6
    alike, apart = [[0.0, 0.01]] * 3, [[0.0, 0.01], [0.08, 0.01], [0.0, 0.01]]
    entries_of = hexagon([[900.0, *one], [800.0, *turned], [900.0, *other]], alike)
    assert crystals.crystals(entries_of, 6).tolist() == [0, 0, 1]
    # By half turns, which are the symmetry of an oblique lattice, they are exchanged as well; by
    # none they are two.
    assert crystals.crystals(entries_of, 2).tolist() == [0, 0, 1]
    assert crystals.crystals(entries_of, 1).tolist() == [0, 1, 2]
    # Cells of two sizes are two materials, whatever their disks.
    entries_of = hexagon([[900.0, *one], [800.0, *turned], [900.0, *one]], apart)
    assert crystals.crystals(entries_of, 6).tolist() == [0, 1, 0]
