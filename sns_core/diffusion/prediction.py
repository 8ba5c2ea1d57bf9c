"""The quantity that a denoising network predicts: the target of its training, and the noise that its output means.

"noise", "velocity" and "clean" treat each frame by itself (`NoiseSchedule.target`). "residual" treats the pair: the
network predicts the difference between the clean pair and the best linear estimate of it.

Let z_1, z_2 be one mode of the two clean frames in the diffusion's coordinates, and y_i = alpha_i z_i + sigma_i n_i the
same mode of the noised frames. In shell K, each frame has the variance P(K), and successive frames have the correlation
rho(K). The best linear estimate m of z from y and the covariance C of its error are

    Sigma = P [[1, rho], [rho, 1]],   A = diag(alpha),   M = A Sigma A + diag(sigma^2),
    m = Sigma A M^-1 y,               C = Sigma - Sigma A M^-1 A Sigma.

The network predicts the residual (z - m) / sqrt(diag C). The residual has unit variance in every shell at every pair of
levels. At low levels it is the noise. Where x_t is pure noise, it is x_t relative to the estimate of x_t from x_{t-1}.
The clean frame's error is the network's error times sqrt(diag C), which never exceeds the spread that the linear
estimate leaves; an error of predicted noise is divided by alpha instead. For one frame and one shell, this is the
preconditioning of Karras et al. (2022, section 5).
"""

import torch

from sns_core.diffusion.colour import NoiseColour
from sns_core.diffusion.schedule import PREDICTIONS, NoiseSchedule
from sns_core.shells import shell_index

KINDS = (*PREDICTIONS, "residual")


class Prediction:
    """A prediction that treats each frame by itself. `kind`: "noise", "velocity" or "clean"; ValueError for another.

    In all methods, `levels` is (B, F) int64 and fields are (B, F, C, N, N) for F frames: F = 2 for the previous and the
    next frame, F = 1 for the next frame alone.
    """

    def __init__(self, kind: str, schedule: NoiseSchedule):
        if kind not in PREDICTIONS:
            raise ValueError(f"unknown prediction {kind!r}; known: {', '.join(KINDS)}")
        self.kind, self.schedule = kind, schedule

    def target(self, clean: torch.Tensor, noised: torch.Tensor, noise: torch.Tensor, levels) -> torch.Tensor:
        """Return the training target (B, F, C, N, N): the output of a perfect network."""
        flat = clean.flatten(0, 1), noise.flatten(0, 1), levels.flatten()
        return self.schedule.target(self.kind, *flat).view_as(clean)

    def noise(self, output: torch.Tensor, noised: torch.Tensor, levels) -> torch.Tensor:
        """Return the noise (B, F, C, N, N) that the network's `output` predicts for the frames `noised`."""
        if self.kind == "noise":
            return output
        flat = output.flatten(0, 1), noised.flatten(0, 1), levels.flatten()
        return self.schedule.noise_from(self.kind, *flat).view_as(output)


class ResidualPrediction(Prediction):
    """The prediction of the scaled difference between the clean pair and its best linear estimate.

    Parameters: `schedule` of the noise levels; `colour`, the diffusion's coordinates; `shell_amplitude` (C, K), the
    root-mean-square amplitude of the frames in each shell; `correlation` (C, K) of successive frames in each shell. The
    variance of a mode in the coordinates follows from `colour` and `shell_amplitude`.
    """

    kind = "residual"
    # Lower bound of the spread. For a clean frame the spread is zero, and a division by it would amplify rounding
    # errors.
    FLOOR = 1e-3

    def __init__(self, schedule: NoiseSchedule, colour: NoiseColour, shell_amplitude, correlation):
        self.schedule = schedule
        device = colour.factor.device
        self.shells = torch.from_numpy(shell_index(colour.resolution)).to(device)
        amplitude = torch.as_tensor(shell_amplitude, dtype=torch.float64, device=device)
        # The colour's factor is the same in all modes of a shell, so it does not matter which mode is written last.
        factor = torch.zeros_like(amplitude)
        factor[:, self.shells.flatten()] = colour.factor.double().flatten(1)
        self.power = (amplitude * factor).square().clamp(min=self.FLOOR**2)
        self.correlation = torch.as_tensor(correlation, dtype=torch.float64, device=device).clamp(0, 1 - 1e-6)

    def linear(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gains and the spreads of the linear estimate for pairs at `levels` (B, 2).

        `gain` (B, 2, 2, C, N, N // 2 + 1): `gain[:, i, j]` is the factor of noised frame j in the estimate of clean
        frame i. `spread` (B, 2, C, N, N // 2 + 1): the standard deviation of each estimate's error.
        """
        device, power, rho = self.power.device, self.power, self.correlation
        alpha_1, alpha_2 = (self.schedule.signal(level).to(device)[:, None, None] for level in levels.unbind(1))
        noise_1, noise_2 = (self.schedule.sigma(level).to(device)[:, None, None].square() for level in levels.unbind(1))
        # The covariance M of the two observations y, mode by mode.
        cross = alpha_1 * alpha_2 * rho * power
        variance_1, variance_2 = alpha_1**2 * power + noise_1, alpha_2**2 * power + noise_2
        determinant = variance_1 * variance_2 - cross**2

        def times_inverse(a, b):
            """Return the row vector (a, b) times the inverse of M."""
            return (a * variance_2 - b * cross) / determinant, (b * variance_1 - a * cross) / determinant

        rows = [
            times_inverse(power * alpha_1, power * rho * alpha_2),
            times_inverse(power * rho * alpha_1, power * alpha_2),
        ]
        error_variance = [
            power * (1 - rows[0][0] * alpha_1 - rows[0][1] * rho * alpha_2),
            power * (1 - rows[1][0] * rho * alpha_1 - rows[1][1] * alpha_2),
        ]
        gain = torch.stack([torch.stack(row, 1) for row in rows], 1)
        spread = torch.stack(error_variance, 1).clamp(min=self.FLOOR**2).sqrt()
        return gain[..., self.shells].float(), spread[..., self.shells].float()

    def _estimate(self, noised: torch.Tensor, levels: torch.Tensor):
        """Return the spectrum (B, F, C, N, N // 2 + 1) of the linear estimate, and its spreads of the same shape."""
        single = noised.shape[1] == 1
        if single:
            # The next frame alone is estimated as in a pair whose previous frame is pure noise and tells nothing.
            levels = torch.cat([torch.full_like(levels, self.schedule.levels), levels], 1)
        gain, spread = self.linear(levels)
        spectrum = torch.fft.rfft2(noised.float())
        if single:
            return gain[:, 1:, 1] * spectrum, spread[:, 1:]
        return (gain * spectrum[:, None]).sum(2), spread

    def target(self, clean, noised, noise, levels):
        """Return the scaled residual (B, F, C, N, N) of the linear estimate."""
        estimate, spread = self._estimate(noised, levels)
        residual = (torch.fft.rfft2(clean.float()) - estimate) / spread
        return torch.fft.irfft2(residual, s=clean.shape[-2:])

    def noise(self, output, noised, levels):
        """Return the noise (B, F, C, N, N) that the network's `output` predicts for the frames `noised`."""
        if noised.shape[1] == 1 and len(noised) == 1:
            # The transform of a single field may differ in the last bit from the same field's transform in a batch.
            return self.noise(*(torch.cat([part, part]) for part in (output, noised, levels)))[:1]
        estimate, spread = self._estimate(noised, levels)
        clean = torch.fft.irfft2(estimate + spread * torch.fft.rfft2(output), s=output.shape[-2:])
        flat = clean.flatten(0, 1), noised.flatten(0, 1), levels.flatten()
        return self.schedule.noise_from("clean", *flat).view_as(output)


def build_prediction(
    kind: str, schedule: NoiseSchedule, colour: NoiseColour, statistics: dict, correlation=None
) -> Prediction:
    """Build the prediction of a configured name: noise, velocity, clean or residual.

    `statistics`: the data manifest's statistics, from which "residual" reads `shell_amplitude`. `correlation` (C, K) is
    used by "residual" alone. Raises ValueError for an unknown name.
    """
    if kind == "residual":
        return ResidualPrediction(schedule, colour, statistics["shell_amplitude"], correlation)
    return Prediction(kind, schedule)
