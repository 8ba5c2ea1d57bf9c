"""The colour of the noise: coordinates in which white noise disturbs all scales of a field more evenly.

White noise on a field whose spectrum falls steeply disturbs only the smallest scales. The forward process therefore
runs in partly whitened coordinates

    z_hat(k) = c w_hat(k) / A(K)^p,   K = round(|k|),

with A(K) the root-mean-square amplitude of the training data in shell K, per channel, and c such that z has unit
variance. White noise in z is noise with spectrum A^{2p} in the field. p = 0 is the published method, p = 1 full
whitening. Any linear change of coordinates leaves the theory of the plane as it is.
"""

import torch

from sns_core.shells import filtered, mode_weight, shell_index


class NoiseColour:
    """The map x <-> z for frames (..., C, N, N) in units of the training split's standard deviation.

    Parameters: `exponent` p, one number or one a channel; `shell_amplitude` (C, K) from the data manifest, for the
    same N. Raises ValueError where these do not fit each other.
    """

    # Shells without signal, such as the mean of a vorticity, would be divided by zero.
    FLOOR = 1e-3

    def __init__(self, exponent: float | list[float], shell_amplitude, resolution: int, device="cpu"):
        amplitude = torch.as_tensor(shell_amplitude, dtype=torch.float64)
        shells = torch.from_numpy(shell_index(resolution))
        if amplitude.ndim != 2 or amplitude.shape[1] != int(shells.max()) + 1:
            raise ValueError(
                f"shell amplitudes of shape {tuple(amplitude.shape)} do not belong to a {resolution} x {resolution} grid"
            )
        exponents = torch.as_tensor(exponent, dtype=torch.float64).reshape(-1)
        if len(exponents) not in (1, len(amplitude)):
            raise ValueError(
                f"{len(exponents)} colour exponents for {len(amplitude)} channels; give one, or one a channel"
            )
        exponents = exponents.expand(len(amplitude))
        self.exponent, self.resolution = exponents.tolist(), resolution
        bounded = torch.maximum(amplitude, self.FLOOR * amplitude.amax(1, keepdim=True))[:, shells]
        amplitude = amplitude[:, shells]
        weight = torch.from_numpy(mode_weight(resolution))
        whitened = amplitude * bounded ** -exponents[:, None, None]
        variance = (weight * whitened**2).sum((-2, -1), keepdim=True) / resolution**2
        factor = bounded ** -exponents[:, None, None] / variance.sqrt()
        self.factor = factor.to(device, torch.float32)
        self.inverse_factor = (1 / factor).to(device, torch.float32)
        self.white = not any(self.exponent)

    def whiten(self, x: torch.Tensor) -> torch.Tensor:
        """Field -> coordinates of the diffusion; the identity for p = 0."""
        return x if self.white else filtered(x, self.factor)

    def unwhiten(self, z: torch.Tensor) -> torch.Tensor:
        """Coordinates of the diffusion -> field."""
        return z if self.white else filtered(z, self.inverse_factor)
