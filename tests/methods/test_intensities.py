"""How many clusters the intensities of disks form."""

import numpy as np
import torch

from ccstae.methods.ccstae.intensities import Relative, cluster


def test_entries_are_counted_and_told_apart():
    rng = np.random.default_rng(0)
    shares = np.array([[1.0, 2, 3, 1, 2, 3], [3.0, 2, 1, 3, 2, 1]])
    label = rng.integers(0, 2, 300)
    mean = 60 * shares[label]
    intensity = torch.from_numpy(rng.poisson(mean).astype(np.float32))
    centre, odds = cluster(Relative.of(intensity, torch.from_numpy(mean.astype(np.float32))))
    assert len(centre) == 2
    agree = float((odds.argmax(1).numpy() == label).mean())
    assert max(agree, 1 - agree) > 0.99
    one, _ = cluster(
        Relative.of(
            torch.from_numpy(rng.poisson(60 * shares[np.zeros(300, int)]).astype(np.float32)),
            torch.from_numpy(60 * shares[np.zeros(300, int)]).float(),
        )
    )
    assert len(one) == 1


def test_entries_are_counted_where_disks_hold_few_counts():
    """Ten counts a disk, without background: the variance that a pattern states is its own counts,
    small where they are few by chance.
    """
    rng = np.random.default_rng(1)
    shares = np.array([[1.0, 2, 3, 1, 2, 3, 1, 2, 3], [3.0, 2, 1, 3, 2, 1, 3, 2, 1]]) / 18
    label = rng.integers(0, 2, 500)
    for kinds, expected in ((shares[label], 2), (shares[np.zeros(500, int)], 1)):
        intensity = torch.from_numpy(np.maximum(rng.poisson(90 * kinds), 0.3).astype(np.float32))
        centre, odds = cluster(Relative.of(intensity, intensity))
        assert len(centre) == expected
        if expected == 2:
            agree = float((odds.argmax(1).numpy() == label).mean())
            assert max(agree, 1 - agree) > 0.97
