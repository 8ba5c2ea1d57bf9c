"""The colour of the noise: coordinates in which white noise disturbs all scales of a field more evenly.

The spectrum of a turbulent field falls steeply, so white noise on the field disturbs only its smallest scales. The
forward process therefore runs in partly whitened coordinates z. Per channel and wavenumber k of shell K = round(|k|),

    z_hat(k) = c w_hat(k) / A(K)^p.

A(K) is the root-mean-square amplitude of the training data in shell K, and the constant c gives z unit variance. White
noise in z is noise with the spectrum A^{2p} in the field. The exponent p = 0 is the published method, in which z is the
field itself (c = 1), and p = 1 whitens the field fully. The theory of the plane holds in any linear coordinates.
"""

import torch

from sns_core.grids import Grid, grid_shape
from sns_core.shells import filtered, mode_weight, shell_index


class NoiseColour:
    """The linear map between frames x and the diffusion's coordinates z, both (..., C, N, N).

    Frames are in units of the training split's standard deviation. Parameters: `exponent` p, one number, or one per
    channel; `shell_amplitude` (C, K), the root-mean-square amplitude of each shell from the data manifest, for the same
    grid; `resolution` N, or (H, W). Raises ValueError where the number of shells or of exponents does not fit.
    """

    # Lower bound of a shell's amplitude, relative to the largest one of the channel. Without a bound, a shell without
    # signal (such as the mean of a vorticity) would be divided by zero.
    FLOOR = 1e-3

    def __init__(self, exponent: float | list[float], shell_amplitude, resolution: Grid, device="cpu"):
        amplitude = torch.as_tensor(shell_amplitude, dtype=torch.float64)
        shells = torch.from_numpy(shell_index(resolution))
        height, width = grid_shape(resolution)
        if amplitude.ndim != 2 or amplitude.shape[1] != int(shells.max()) + 1:
            raise ValueError(
                f"shell amplitudes of shape {tuple(amplitude.shape)} do not fit a grid of {height} x {width}"
            )
        exponents = torch.as_tensor(exponent, dtype=torch.float64).reshape(-1)
        if len(exponents) not in (1, len(amplitude)):
            raise ValueError(
                f"{len(exponents)} colour exponents for {len(amplitude)} channels; give one, or one per channel"
            )
        exponents = exponents.expand(len(amplitude))
        self.exponent, self.resolution = exponents.tolist(), resolution
        self.white = not any(self.exponent)
        bounded = torch.maximum(amplitude, self.FLOOR * amplitude.amax(1, keepdim=True))[:, shells]
        amplitude = amplitude[:, shells]
        weight = torch.from_numpy(mode_weight(resolution))
        whitened = amplitude * bounded ** -exponents[:, None, None]
        variance = (weight * whitened**2).sum((-2, -1), keepdim=True) / (height * width)
        # Frames with a mean have a variance above 1, and for p = 0 they stay as they are.
        factor = torch.ones_like(bounded) if self.white else bounded ** -exponents[:, None, None] / variance.sqrt()
        self.factor = factor.to(device, torch.float32)
        first = [int((shells == shell).flatten().nonzero()[0]) for shell in range(int(shells.max()) + 1)]
        self.shell_factor = factor.flatten(1)[:, first]  # (C, K), float64 on the CPU
        self.inverse_factor = (1 / factor).to(device, torch.float32)

    def whiten(self, x: torch.Tensor) -> torch.Tensor:
        """Map frames x (..., C, N, N) to coordinates z of the same shape; for p = 0 return x itself."""
        return x if self.white else filtered(x, self.factor)

    def unwhiten(self, z: torch.Tensor) -> torch.Tensor:
        """Map coordinates z (..., C, N, N) back to frames x of the same shape; for p = 0 return z itself."""
        return z if self.white else filtered(z, self.inverse_factor)
