"""Helpers of the tests of the plane of noise levels: exact oracles, wrong oracles, walks that are recorded."""

import math

import torch

from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler
from sns_core.streams import generator

F64 = torch.float64
SAMPLERS = {"ancestral": Sampler(), "forward": Sampler(variance="forward"), "ddim": Sampler(eta=0.0)}
TO_CLEAN = ("left_then_down", "down_then_left", "diagonal")

# The matrix is not symmetric and has complex eigenvalues, so that tests notice a transposed block or a swapped frame.
TRANSITION = torch.tensor([[0.8, 0.3, 0.0], [-0.25, 0.7, 0.2], [0.1, 0.0, 0.5]], dtype=F64)
INNOVATION = torch.tensor([[0.3, 0.05, 0.0], [0.05, 0.2, 0.02], [0.0, 0.02, 0.4]], dtype=F64)


def schedule_of(levels: int) -> NoiseSchedule:
    return NoiseSchedule.cosine(levels)


def oracle_3d(levels: int) -> GaussianOracle:
    return GaussianOracle(TRANSITION, INNOVATION, schedule_of(levels))


def oracle_1d(levels: int, correlation: float = 0.9) -> GaussianOracle:
    """A scalar process whose frames have unit variance."""
    return scalar_oracle(correlation, 1 - correlation**2, schedule_of(levels))


def scalar_oracle(correlation: float, innovation: float, schedule: NoiseSchedule) -> GaussianOracle:
    return GaussianOracle(*(torch.tensor([[x]], dtype=F64) for x in (correlation, innovation)), schedule)


def levels_of(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def visited(path: Path, member: int = 0) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in path.levels[:, member].tolist()]


def streams_of(members, purpose="walk") -> list[torch.Generator]:
    return [generator("test", purpose, member) for member in members]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}[a.dtype]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))


class Recorder:
    """A denoiser that keeps the arguments of every call and lets another denoiser answer."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, []

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        self.calls.append((x_prev.clone(), x_next.clone(), s_prev.clone(), s_next.clone(), anchor))
        return self.denoiser(x_prev, x_next, s_prev, s_next, anchor)


class FramesSwapped(GaussianOracle):
    """A wrong oracle: it takes the level of each frame for the level of the other frame."""

    def noised_covariance(self, s_prev, s_next):
        return super().noised_covariance(s_next, s_prev)


class TimeReversed(GaussianOracle):
    """A wrong oracle: it takes the next frame for the previous one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.covariance = self.covariance.roll((self.size, self.size), (0, 1))


class LevelOff(GaussianOracle):
    """A wrong oracle: it takes each level for one that is higher by a fifth of the schedule."""

    def noised_covariance(self, s_prev, s_next):
        top = self.schedule.levels
        return super().noised_covariance(*((s + top // 5).clamp(max=top) for s in (s_prev, s_next)))


class OneLevelOff(GaussianOracle):
    """A wrong oracle: it takes each level for the next higher one."""

    def noised_covariance(self, s_prev, s_next):
        top = self.schedule.levels
        return super().noised_covariance(*((s + 1).clamp(max=top) for s in (s_prev, s_next)))


def stationary_by_series(transition: torch.Tensor, innovation: torch.Tensor) -> torch.Tensor:
    """Return the stationary covariance as the sum of A^k Q A^kT, without solving a linear system."""
    total, term = innovation.clone(), innovation
    for _ in range(400):  # spectral radius 0.76: 0.76^800 is far below rounding
        term = transition @ term @ transition.T
        total = total + term
    return total


# Levels (s_prev, s_next) of every kind: both noised, one clean, both clean, both at the top.
CORNERS = [(4, 7), (7, 4), (0, 5), (5, 0), (0, 0), (10, 10), (1, 10)]


def noised_pairs(oracle: GaussianOracle, corners=CORNERS, seed="pairs"):
    """Return one noised pair for each corner, each frame (corners, 1, 1, 3), and the levels of both frames."""
    g = generator("test", seed)
    s_prev, s_next = (levels_of(*side) for side in zip(*corners, strict=True))
    frames = oracle.sample(len(corners), g, (1, 1, 3))
    noised = [
        oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
        for x, s in zip(frames, (s_prev, s_next), strict=True)
    ]
    return *noised, s_prev, s_next


def covariance_blocks(oracle: GaussianOracle, s_prev: int, s_next: int):
    """Compute the covariances (prev, cross = E[next prev^T], next) of the noised pair from the process itself."""
    sigma, identity = stationary_by_series(TRANSITION, INNOVATION), torch.eye(3, dtype=F64)
    a2, a1 = (oracle.schedule.alpha_bar[s].item() for s in (s_prev, s_next))
    cross = math.sqrt(a1 * a2) * TRANSITION @ sigma
    return a2 * sigma + (1 - a2) * identity, cross, a1 * sigma + (1 - a1) * identity
