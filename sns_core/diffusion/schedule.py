"""The variance-preserving forward process and its reverse steps between arbitrary levels.

Levels s = 0 .. S, level 0 clean. With the cumulative signal a(s) = alpha_bar(s), a(0) = 1 (paper, section 2):

    x^s = sqrt(a(s)) x + sqrt(1 - a(s)) eps.

A reverse step from level s to level r < s with predicted noise eps_hat (DDIM, Song et al. 2021, eq. 12; eta = 1 is
DDPM's ancestral step with the posterior variance):

    x_hat = (x^s - sqrt(1 - a_s) eps_hat) / sqrt(a_s)
    x^r   = sqrt(a_r) x_hat + sqrt(1 - a_r - v) eps_hat + sqrt(v) noise,
    v     = eta^2 (1 - a_r) / (1 - a_s) (1 - a_s / a_r).
"""

import math
from dataclasses import dataclass

import torch

PREDICTIONS = ("noise", "velocity", "clean")

Levels = torch.Tensor  # int64, one level a member


@dataclass(frozen=True)
class NoiseSchedule:
    """Cumulative signal of each level. `alpha_bar`: (S + 1,) float64, decreasing from 1 at level 0."""

    alpha_bar: torch.Tensor

    def __post_init__(self):
        table = self.alpha_bar
        if table.ndim != 1 or len(table) < 2 or table[0] != 1 or (table.diff() >= 0).any() or table[-1] <= 0:
            raise ValueError("alpha_bar must be one-dimensional and fall strictly from 1, staying positive")

    @classmethod
    def cosine(cls, levels: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> "NoiseSchedule":
        """Cosine schedule with beta clipped at `max_beta` (Nichol and Dhariwal 2021, eq. 17)."""
        time = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
        signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        beta = (1 - signal[1:] / signal[:-1]).clamp(max=max_beta)
        return cls._from_beta(beta)

    @classmethod
    def linear(cls, levels: int = 1000, first: float = 1e-4, last: float = 0.02) -> "NoiseSchedule":
        """Beta rising linearly, stretched so that the total noise does not depend on `levels` (Ho et al. 2020)."""
        beta = torch.linspace(first, last, levels, dtype=torch.float64) * (1000 / levels)
        return cls._from_beta(beta.clamp(max=0.999))

    @classmethod
    def log_spaced(cls, levels: int = 60, first: float = 0.01, last: float = 50.0) -> "NoiseSchedule":
        """Noise-to-signal ratio sqrt((1 - a) / a) spaced evenly in its logarithm from `first` to `last`."""
        ratio = torch.logspace(math.log10(first), math.log10(last), levels, dtype=torch.float64)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + ratio**2)]))

    @classmethod
    def _from_beta(cls, beta: torch.Tensor) -> "NoiseSchedule":
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)]))

    @classmethod
    def build(cls, kind: str, levels: int) -> "NoiseSchedule":
        """By configured name: cosine, linear or log_spaced. Raises ValueError for another name."""
        makers = {"cosine": cls.cosine, "linear": cls.linear, "log_spaced": cls.log_spaced}
        if kind not in makers:
            raise ValueError(f"unknown schedule {kind!r}; known: {', '.join(makers)}")
        return makers[kind](levels)

    @property
    def levels(self) -> int:
        """S, the noisiest level."""
        return len(self.alpha_bar) - 1

    def signal(self, level: Levels) -> torch.Tensor:
        """sqrt(a(level)), float64."""
        return self.alpha_bar[level.cpu()].sqrt()

    def sigma(self, level: Levels) -> torch.Tensor:
        """sqrt(1 - a(level)), float64: the standard deviation of the noise."""
        return (1 - self.alpha_bar[level.cpu()]).sqrt()

    def add_noise(self, x: torch.Tensor, level: Levels, noise: torch.Tensor) -> torch.Tensor:
        """Forward-diffuse clean x (B, ...) to `level` (B,); a member at level 0 is returned exactly as it is."""
        return per_member(self.signal(level), x) * x + per_member(self.sigma(level), x) * noise

    def target(self, prediction: str, x: torch.Tensor, noise: torch.Tensor, level: Levels) -> torch.Tensor:
        """What a network of the kind `prediction` learns to give for x (B, ...) noised to `level` with `noise`.

        "velocity" is sqrt(a) eps - sqrt(1 - a) x (Salimans and Ho 2022): the noise at low levels, minus the clean frame at
        high ones, where an error of the predicted noise would be divided by sqrt(a).
        """
        if prediction == "noise":
            return noise
        if prediction == "clean":
            return x
        if prediction == "velocity":
            return per_member(self.signal(level), x) * noise - per_member(self.sigma(level), x) * x
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def noise_from(self, prediction: str, output: torch.Tensor, noised: torch.Tensor, level: Levels) -> torch.Tensor:
        """The predicted noise that the output (B, ...) of such a network means for the frame `noised` at `level`.

        Zero at level 0 for "clean", which says nothing of a noise that is not there.
        """
        if prediction == "noise":
            return output
        signal, sigma = per_member(self.signal(level), noised), per_member(self.sigma(level), noised)
        if prediction == "velocity":
            return signal * output + sigma * noised
        return torch.where(sigma > 0, (noised - signal * output) / sigma.clamp(min=1e-12), 0.0)

    def reverse_coefficients(self, start: Levels, stop: Levels, eta: float = 1.0, variance: str = "posterior"):
        """Coefficients (of x^s, of eps_hat, of fresh noise), each float64 like `start`, of a reverse step.

        `variance`: "posterior" as above, exact for data that are a point; "forward" adds noise of variance
        1 - a_s / a_r instead (but none on arrival at level 0), exact for white data of unit variance.
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
    """(B,) -> (B, 1, ..., 1) with the device and type of `like`."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))
