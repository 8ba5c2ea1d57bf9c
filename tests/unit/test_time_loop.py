"""The guarded time loop of all systems, with a system as a user writes it: on torch's own transforms."""

import pytest
import torch

from sns_core.systems import System


class Diffusion(System):
    """Diffusion of a field, by the transforms of torch, whose rounding depends on the size of the batch at 32 points."""

    dt = 0.1

    def __init__(self, resolution: int):
        self.resolution = resolution
        k = torch.fft.fftfreq(resolution, 1 / resolution)[:, None], torch.arange(resolution // 2 + 1)[None, :]
        self.factor = torch.exp(-1e-3 * self.dt * (k[0] ** 2 + k[1] ** 2))

    def initial_state(self, members, generator):
        return torch.randn(members, 1, self.resolution, self.resolution, generator=generator)

    def step(self, carry):
        spectrum = torch.fft.rfft2(carry["state"]) * self.factor
        return {"state": torch.fft.irfft2(spectrum, s=(self.resolution, self.resolution))}

    def velocity(self, state):
        return torch.zeros_like(state), torch.zeros_like(state)


@pytest.mark.parametrize("members", [3, 5, 7])
@pytest.mark.parametrize("group", [2, 3, 6])
def test_a_member_that_is_left_over_by_the_groups_has_the_bits_of_the_whole_batch(members, group):
    flow = Diffusion(32)
    state = flow.initial_state(members, torch.Generator().manual_seed(1))
    whole = flow.advance(state, 3)
    flow.cache_points = group * 32**2
    assert torch.equal(flow.advance(state, 3), whole)


@pytest.mark.parametrize("clock", [torch.zeros(()), torch.zeros(1)])
def test_a_carry_without_a_row_for_each_member_is_refused(clock):
    class Timed(Diffusion):
        def start(self, state):
            return {"state": state, "clock": clock}

    flow = Timed(8)
    with pytest.raises(ValueError, match=r"Timed: .*axis of members.*clock") as caught:
        flow.advance(flow.initial_state(2, torch.Generator().manual_seed(1)), 1)
    assert "\n" not in str(caught.value)
