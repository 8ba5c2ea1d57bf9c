"""What a denoising network gives, and what that says of the noise.

"noise", "velocity" and "clean" look at each frame by itself (`NoiseSchedule.target`). "residual" looks at the pair: the network
gives what the best linear estimate leaves. Both frames have, in every mode of shell K, the variance P(K) and successive frames
the correlation rho(K); the linear estimate of the clean pair from the noised one, y_i = alpha_i z_i + sigma_i n_i, is

    m = Sigma A (A Sigma A + diag(sigma^2))^-1 y,   Sigma = P [[1, rho], [rho, 1]],   A = diag(alpha),

with covariance C = Sigma - Sigma A (A Sigma A + diag(sigma^2))^-1 A Sigma, and the network gives (z - m) / sqrt(diag C), mode
by mode. It has unit variance at every pair of levels and in every shell: the noise where there is little of it, and where x_t is
nothing but noise, x_t relative to what x_{t-1} tells of it. An error of the network therefore never counts more than the
spread that is to be explained, while an error of predicted noise is divided by alpha. For one frame and one shell this is the
preconditioning of Karras et al. (2022, section 5).
"""

import torch

from sns_core.diffusion.colour import NoiseColour
from sns_core.diffusion.schedule import PREDICTIONS, NoiseSchedule
from sns_core.shells import shell_index

KINDS = (*PREDICTIONS, "residual")


class Prediction:
    """Frames by themselves: `kind` noise, velocity or clean. ValueError for another.

    Everywhere `levels` is (B, F) int64, F frames (2: the previous one first; 1: the next one alone), and fields are
    (B, F, C, N, N).
    """

    def __init__(self, kind: str, schedule: NoiseSchedule):
        if kind not in PREDICTIONS:
            raise ValueError(f"unknown prediction {kind!r}; known: {', '.join(KINDS)}")
        self.kind, self.schedule = kind, schedule

    def target(self, clean: torch.Tensor, noised: torch.Tensor, noise: torch.Tensor, levels) -> torch.Tensor:
        """What the network is to give."""
        flat = clean.flatten(0, 1), noise.flatten(0, 1), levels.flatten()
        return self.schedule.target(self.kind, *flat).view_as(clean)

    def noise(self, output: torch.Tensor, noised: torch.Tensor, levels) -> torch.Tensor:
        """The predicted noise that an output means."""
        if self.kind == "noise":
            return output
        flat = output.flatten(0, 1), noised.flatten(0, 1), levels.flatten()
        return self.schedule.noise_from(self.kind, *flat).view_as(output)


class ResidualPrediction(Prediction):
    """What the best linear estimate leaves. `correlation` (C, K) of successive frames by shell; the variances follow from
    the `colour`'s coordinates and `shell_amplitude` (C, K)."""

    kind = "residual"
    # Of the spread: where a frame is clean there is nothing left, and rounding must not be blown up.
    FLOOR = 1e-3

    def __init__(self, schedule: NoiseSchedule, colour: NoiseColour, shell_amplitude, correlation):
        self.schedule = schedule
        device = colour.factor.device
        self.shells = torch.from_numpy(shell_index(colour.resolution)).to(device)
        amplitude = torch.as_tensor(shell_amplitude, dtype=torch.float64, device=device)
        # The factor is the same in all modes of a shell: that of any of them will do.
        factor = torch.zeros_like(amplitude)
        factor[:, self.shells.flatten()] = colour.factor.double().flatten(1)
        self.power = (amplitude * factor).square().clamp(min=self.FLOOR**2)
        self.correlation = torch.as_tensor(correlation, dtype=torch.float64, device=device).clamp(0, 1 - 1e-6)

    def linear(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains (B, 2, 2, C, N, N // 2 + 1), from the second frame index to the first, and spreads (B, 2, C, N, ...)."""
        device, power, rho = self.power.device, self.power, self.correlation
        one, two = (self.schedule.signal(level).to(device)[:, None, None] for level in levels.unbind(1))
        first, second = (self.schedule.sigma(level).to(device)[:, None, None].square() for level in levels.unbind(1))
        cross = one * two * rho * power
        first, second = one**2 * power + first, two**2 * power + second
        determinant = first * second - cross**2

        def solve(a, b):
            """(a, b) times the inverse of the observations' covariance."""
            return (a * second - b * cross) / determinant, (b * first - a * cross) / determinant

        rows = [solve(power * one, power * rho * two), solve(power * rho * one, power * two)]
        left = [
            power * (1 - rows[0][0] * one - rows[0][1] * rho * two),
            power * (1 - rows[1][0] * rho * one - rows[1][1] * two),
        ]
        gain = torch.stack([torch.stack(row, 1) for row in rows], 1)
        spread = torch.stack(left, 1).clamp(min=self.FLOOR**2).sqrt()
        return gain[..., self.shells].float(), spread[..., self.shells].float()

    def _pair(self, noised: torch.Tensor, levels: torch.Tensor):
        """The spectrum (B, F, C, N, N // 2 + 1) of the linear estimate, and the spreads."""
        single = noised.shape[1] == 1
        if single:  # of a previous frame that is pure noise nothing is known
            levels = torch.cat([torch.full_like(levels, self.schedule.levels), levels], 1)
        gain, spread = self.linear(levels)
        spectrum = torch.fft.rfft2(noised.float())
        if single:
            return gain[:, 1:, 1] * spectrum, spread[:, 1:]
        return (gain * spectrum[:, None]).sum(2), spread

    def target(self, clean, noised, noise, levels):
        estimate, spread = self._pair(noised, levels)
        left = (torch.fft.rfft2(clean.float()) - estimate) / spread
        return torch.fft.irfft2(left, s=clean.shape[-2:])

    def noise(self, output, noised, levels):
        estimate, spread = self._pair(noised, levels)
        clean = torch.fft.irfft2(estimate + spread * torch.fft.rfft2(output), s=output.shape[-2:])
        flat = clean.flatten(0, 1), noised.flatten(0, 1), levels.flatten()
        return self.schedule.noise_from("clean", *flat).view_as(output)


def build_prediction(
    kind: str, schedule: NoiseSchedule, colour: NoiseColour, statistics: dict, correlation=None
) -> Prediction:
    """By configured name; `correlation` (C, K) is needed by "residual" alone. ValueError for an unknown name."""
    if kind == "residual":
        return ResidualPrediction(schedule, colour, statistics["shell_amplitude"], correlation)
    return Prediction(kind, schedule)
