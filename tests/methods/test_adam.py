"""Adam against torch's own."""

import pytest
import torch

from ccstae.methods.shared import adam

STEPS = 40


def descend(step) -> torch.Tensor:
    """A matrix after some steps down a bumpy slope; `step` takes the parameters and gives what
    moves them by their gradients.
    """
    torch.manual_seed(0)
    x = torch.nn.Parameter(torch.randn(5, 7))
    target = torch.randn(5, 7)
    move = step([x])
    for _ in range(STEPS):
        x.grad = None
        ((x - target) ** 2 + 0.3 * torch.sin(5 * x)).sum().backward()
        move()
    return x.detach()


def test_steps_are_those_of_torch_to_the_bit():
    def ours(parameters):
        optimiser = adam.Adam(parameters)
        return lambda: optimiser.step(3e-2)

    def of_torch(parameters):
        return torch.optim.Adam(parameters, lr=3e-2).step

    assert torch.equal(descend(ours), descend(of_torch))


def test_the_cycle_is_that_of_torch():
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=STEPS)
    for step in range(STEPS):
        group = optimiser.param_groups[0]
        assert adam.one_cycle(step, STEPS, 6e-3) == pytest.approx(
            (group["lr"], group["betas"][0]), rel=1e-12
        )
        optimiser.step()
        if step < STEPS - 1:
            schedule.step()
