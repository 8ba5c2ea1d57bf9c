"""The variance-preserving forward process, and its reverse steps between any two levels.

The levels are s = 0 .. S, and level 0 is clean. With the cumulative signal a(s) = alpha_bar(s), a(0) = 1 (paper,
section 2), a frame x noised to level s is

    x^s = sqrt(a(s)) x + sqrt(1 - a(s)) eps,   eps ~ N(0, I).

A reverse step leads from level s to a level r < s. With the predicted noise eps_hat it is (DDIM: Song et al. 2021,
eq. 12; eta = 1 is the ancestral step of DDPM with the posterior variance)

    x_hat = (x^s - sqrt(1 - a_s) eps_hat) / sqrt(a_s)
    x^r   = sqrt(a_r) x_hat + sqrt(1 - a_r - v) eps_hat + sqrt(v) noise,
    v     = eta^2 (1 - a_r) / (1 - a_s) (1 - a_s / a_r).
"""

import math
from dataclasses import dataclass

import torch

PREDICTIONS = ("noise", "velocity", "clean")

Levels = torch.Tensor  # int64, one level per member


@dataclass(frozen=True)
class NoiseSchedule:
    """A schedule of noise levels.

    `alpha_bar` (S + 1,) float64: the cumulative signal of each level, which falls strictly from 1 at level 0 and stays
    positive. Raises ValueError for any other table.
    """

    alpha_bar: torch.Tensor

    def __post_init__(self):
        table = self.alpha_bar
        if table.ndim != 1 or len(table) < 2 or table[0] != 1 or (table.diff() >= 0).any() or table[-1] <= 0:
            raise ValueError("alpha_bar must be one-dimensional and fall strictly from 1, staying positive")

    @classmethod
    def cosine(cls, levels: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> "NoiseSchedule":
        """Return the cosine schedule with beta clipped at `max_beta` (Nichol and Dhariwal 2021, eq. 17)."""
        time = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
        signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        beta = (1 - signal[1:] / signal[:-1]).clamp(max=max_beta)
        return cls._from_beta(beta)

    @classmethod
    def linear(cls, levels: int = 1000, first: float = 1e-4, last: float = 0.02) -> "NoiseSchedule":
        """Return the schedule with linearly rising beta (Ho et al. 2020).

        Beta is scaled by 1000 / `levels`, so that the total noise hardly depends on the number of levels from 50 on. With
        fewer, beta comes near 1 and little signal is left: a(S) is 4e-5 for 1000 levels, 8e-6 for 50, 6e-11 for 20 and 1e-17
        for 10, so that one long move from level S in single precision ends in rounding errors.
        """
        beta = torch.linspace(first, last, levels, dtype=torch.float64) * (1000 / levels)
        return cls._from_beta(beta.clamp(max=0.999))

    @classmethod
    def log_spaced(cls, levels: int = 60, first: float = 0.01, last: float = 50.0) -> "NoiseSchedule":
        """Return the schedule whose ratio sqrt((1 - a) / a) grows geometrically from `first` to `last`."""
        ratio = torch.logspace(math.log10(first), math.log10(last), levels, dtype=torch.float64)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + ratio**2)]))

    @classmethod
    def _from_beta(cls, beta: torch.Tensor) -> "NoiseSchedule":
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)]))

    @classmethod
    def build(cls, kind: str, levels: int) -> "NoiseSchedule":
        """Return the schedule of a configured name: cosine, linear or log_spaced. Raise ValueError for another name."""
        makers = {"cosine": cls.cosine, "linear": cls.linear, "log_spaced": cls.log_spaced}
        if kind not in makers:
            raise ValueError(f"unknown schedule {kind!r}; known: {', '.join(makers)}")
        return makers[kind](levels)

    @property
    def levels(self) -> int:
        """The noisiest level, S."""
        return len(self.alpha_bar) - 1

    def signal(self, level: Levels) -> torch.Tensor:
        """Return the factor of the clean frame at levels (...): sqrt(a) (...), float64 on the CPU."""
        return self.alpha_bar[level.cpu()].sqrt()

    def sigma(self, level: Levels) -> torch.Tensor:
        """Return the standard deviation of the noise at levels (...): sqrt(1 - a) (...), float64 on the CPU."""
        return (1 - self.alpha_bar[level.cpu()]).sqrt()

    def add_noise(self, x: torch.Tensor, level: Levels, noise: torch.Tensor) -> torch.Tensor:
        """Return the clean frames x (B, ...) noised to `level` (B,) with `noise`. Level 0 keeps the exact bits of x."""
        return per_member(self.signal(level), x) * x + per_member(self.sigma(level), x) * noise

    def target(self, prediction: str, x: torch.Tensor, noise: torch.Tensor, level: Levels) -> torch.Tensor:
        """Return the training target (B, ...) of a network of the kind `prediction`.

        The network sees x (B, ...) noised to `level` (B,) with `noise` (B, ...). "velocity" is sqrt(a) eps - sqrt(1 -
        a) x (Salimans and Ho 2022): it is the noise at low levels and minus the clean frame at high levels, where an
        error of predicted noise would be divided by sqrt(a). Raises ValueError for an unknown kind.
        """
        if prediction == "noise":
            return noise
        if prediction == "clean":
            return x
        if prediction == "velocity":
            return per_member(self.signal(level), x) * noise - per_member(self.sigma(level), x) * x
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def noise_from(self, prediction: str, output: torch.Tensor, noised: torch.Tensor, level: Levels) -> torch.Tensor:
        """Return the noise (B, ...) that a network of the kind `prediction` predicts by its `output` (B, ...).

        `noised` (B, ...) is the frame that the network saw, at `level` (B,). For "clean", the noise at level 0 is zero:
        there is no noise that the clean frame could tell.
        """
        if prediction == "noise":
            return output
        signal, sigma = per_member(self.signal(level), noised), per_member(self.sigma(level), noised)
        if prediction == "velocity":
            return signal * output + sigma * noised
        return torch.where(sigma > 0, (noised - signal * output) / sigma.clamp(min=1e-12), 0.0)

    def reverse_coefficients(self, start: Levels, stop: Levels, eta: float = 1.0, variance: str = "posterior"):
        """Return the factors of x^s, of eps_hat and of fresh noise in reverse steps from the levels `start` to `stop`.

        Each of the three is a float64 tensor on the CPU with the shape of `start`. `variance` "posterior" is the v of
        this module's head, which is exact for data that are a single point. "forward" adds noise of the variance
        1 - a_s / a_r instead, but none on arrival at level 0; it is exact for white data of unit variance. Raises
        ValueError for another `variance`.
        """
        a_s, a_r = self.alpha_bar[start.cpu()], self.alpha_bar[stop.cpu()]
        forward = 1 - a_s / a_r
        posterior = eta**2 * torch.where(a_s < 1, (1 - a_r) / (1 - a_s).clamp(min=1e-300), 0.0) * forward
        of_x = (a_r / a_s).sqrt()
        of_noise = (1 - a_r - posterior).clamp(min=0).sqrt() - of_x * (1 - a_s).sqrt()
        if variance == "posterior":
            fresh = posterior.sqrt()
        elif variance == "forward":
            fresh = eta * torch.where(stop.cpu() > 0, forward, 0.0).sqrt()
        else:
            raise ValueError(f"unknown variance {variance!r}; known: posterior, forward")
        return of_x, of_noise, fresh


def per_member(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `values` (B,) as (B, 1, ..., 1), with as many axes as `like` and the device and type of `like`."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))
