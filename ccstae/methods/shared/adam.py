"""Adam, and the learning rate that rises and falls once.

The optimisers of `torch.optim` load torch's compiler where they are made. That takes 2 s of a
process that otherwise learns in 5, and nothing here is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_RISE = 0.3  # share of the steps in which the rate rises
_MOMENTUM = (0.95, 0.85)  # at the lowest and at the highest rate


class Adam:
    """Adam (D. P. Kingma and J. Ba, arXiv:1412.6980), with the rate and the momentum of each step
    given. Its numbers are those of `torch.optim.Adam` to the bit.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = list(parameters)
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self, rate: float, beta_1: float = _BETA_1) -> None:
        """Take a step of this rate; beta_1 is how much of the mean gradient is kept."""
        self.steps += 1
        size = rate / (1 - beta_1**self.steps)
        root = math.sqrt(1 - _BETA_2**self.steps)
        for p, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            if p.grad is not None:
                mean.lerp_(p.grad, 1 - beta_1)
                square.mul_(_BETA_2).addcmul_(p.grad, p.grad, value=1 - _BETA_2)
                p.addcdiv_(mean, (square.sqrt() / root).add_(_EPSILON), value=-size)


def one_cycle(step: int, steps: int, highest: float) -> tuple[float, float]:
    """Rate and momentum of a step: the rate rises along a cosine from a 25th of the highest and
    falls to a 250,000th, while the momentum falls and rises (L. N. Smith and N. Topin,
    arXiv:1708.07120).
    """
    top, last = _RISE * steps - 1, steps - 1
    first = highest / 25
    rising = step <= top
    part = step / top if rising else (step - top) / (last - top)
    near = (math.cos(math.pi * part) + 1) / 2  # 1 where a phase begins, 0 where it ends
    begin, end = (first, highest) if rising else (highest, first / 1e4)
    slow, fast = _MOMENTUM if rising else _MOMENTUM[::-1]
    return end + (begin - end) * near, fast + (slow - fast) * near
