"""A walk whose first predicted noise is given by the caller equals, bit for bit, a walk that calls the denoiser."""

import pytest
import torch

from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler, walk
from sns_core.streams import generator

MEMBERS = 6
S_PREV, S_NEXT = torch.tensor([5, 0, 8, 3, 10, 0]), torch.tensor([7, 4, 0, 3, 10, 0])
SAMPLERS = {"ancestral": Sampler(), "ddim": Sampler(eta=0.0), "heun": Sampler(eta=0.0, order=2)}


class CountingOracle(GaussianOracle):
    """The exact oracle; `calls` lists the number of members of each call."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []

    def __call__(self, x_prev, *arguments):
        self.calls.append(len(x_prev))
        return super().__call__(x_prev, *arguments)


def build_oracle() -> CountingOracle:
    transition = torch.randn(16, 16, generator=generator("test", "first noise"), dtype=torch.float64)
    transition = 0.8 * transition / torch.linalg.eigvals(transition).abs().max()
    return CountingOracle(transition, torch.eye(16, dtype=torch.float64), NoiseSchedule.cosine(10))


def walk_members(oracle, path, frames, sampler, first_noise=None):
    oracle.calls.clear()
    streams = [generator("test", "walk", member) for member in range(MEMBERS)]
    arguments = {"schedule": oracle.schedule, "generator": streams, "sampler": sampler, "first_noise": first_noise}
    ends = walk(oracle, path, *frames, **arguments)
    return torch.stack(ends), list(oracle.calls)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("name", ["left_then_down", "down_then_left", "diagonal", "fixed_condition", "unconditional"])
def test_the_first_noise_replaces_the_first_call_of_the_denoiser_bit_for_bit(name, sampler):
    oracle = build_oracle()
    path = getattr(Path, name)(S_PREV, S_NEXT)
    frames = oracle.sample(MEMBERS, generator("test", "frames"), (1, 4, 4))
    expected, calls = walk_members(oracle, path, frames, sampler)
    first_noise = oracle(*frames, *path.start.unbind(1))
    with_noise, later_calls = walk_members(oracle, path, frames, sampler, first_noise)
    assert torch.equal(with_noise, expected)
    assert later_calls == calls[1:]


def test_the_first_noise_is_what_the_first_move_uses():
    oracle, path = build_oracle(), Path.diagonal(S_PREV, S_NEXT)
    frames = oracle.sample(MEMBERS, generator("test", "frames"), (1, 4, 4))
    expected, _ = walk_members(oracle, path, frames, Sampler(eta=0.0))
    zero = torch.zeros_like(frames[0]), torch.zeros_like(frames[1])
    assert not torch.equal(walk_members(oracle, path, frames, Sampler(eta=0.0), zero)[0], expected)


def test_a_path_that_renoises_refuses_a_first_noise():
    oracle, path = build_oracle(), Path.acdm(S_NEXT, S_NEXT)
    frames = oracle.sample(MEMBERS, generator("test", "frames"), (1, 4, 4))
    with pytest.raises(ValueError, match="renoises the previous frame takes no first_noise"):
        walk_members(oracle, path, frames, Sampler(), frames)
