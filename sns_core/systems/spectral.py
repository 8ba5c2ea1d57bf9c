"""Fourier representation of real fields on a doubly periodic square.

A field f with N x N points is held by its half spectrum f_hat = rfft2(f) of shape (N, N // 2 + 1), the real
transform taken over the LAST axis. Wavenumbers are angular: 2 pi / length times an integer; row N / 2 carries
-N / 2 and Nyquist modes are kept.
"""

import math

import torch


class SpectralGrid:
    """Wavenumbers of an N x N grid on [0, length)^2, for spectra of shape (..., N, N // 2 + 1).

    Attributes: `k_first` (N, 1) and `k_last` (1, N // 2 + 1), the wavenumbers of the two array axes; `k_squared`;
    `inverse_laplacian` = -1 / k^2 with 0 for the mean.
    """

    def __init__(self, resolution: int, length: float = 2 * math.pi, dtype=torch.float64, device="cpu"):
        if resolution < 4 or resolution % 2:
            raise ValueError(f"resolution {resolution} must be even and at least 4")
        self.resolution, self.length, self.spacing = resolution, length, length / resolution
        unit = 2 * math.pi / length
        options = {"dtype": torch.float64, "device": device}
        first = torch.fft.fftfreq(resolution, 1 / resolution, **options)[:, None] * unit
        last = torch.arange(resolution // 2 + 1, **options)[None, :] * unit
        squared = first**2 + last**2
        inverse = torch.where(squared > 0, -1 / squared.clamp(min=unit**2 / 2), 0.0)
        self.k_first, self.k_last = first.to(dtype), last.to(dtype)
        self.k_squared, self.inverse_laplacian = squared.to(dtype), inverse.to(dtype)

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(field)

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(spectrum, s=(self.resolution, self.resolution))


class PlanarTransforms:
    """Transforms of many fields (..., N, N) to and from half spectra held the other way round, (..., M, N).

    The axis of the complex transform lies last there, so each direction copies once (a transform of the first axis copies
    in and out), and only the first M = `columns` <= N // 2 + 1 wavenumbers of the real axis are computed, the rest being
    zero. Same numbers as `rfft2` and `irfft2`; same bits in float32 where measured (MKL).
    """

    def __init__(self, resolution: int, columns: int):
        self.resolution, self.columns = resolution, columns
        self._padded: dict[tuple, torch.Tensor] = {}

    def inverse(self, spectra: torch.Tensor) -> torch.Tensor:
        """(..., M, N) -> (..., N, N)."""
        n, key = self.resolution, (spectra.shape, spectra.dtype, spectra.device)
        if key not in self._padded:
            self._padded[key] = spectra.new_zeros(*spectra.shape[:-2], n, n // 2 + 1)
        padded = self._padded[key]
        padded[..., : self.columns].copy_(torch.fft.ifft(spectra).transpose(-1, -2))
        return torch.fft.irfft(padded, n=n)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """(..., N, N) -> (..., M, N)."""
        return torch.fft.fft(torch.fft.rfft(fields)[..., : self.columns], dim=-2).transpose(-1, -2)


def symmetrise(column: torch.Tensor) -> None:
    """Make wavenumbers (..., N) that hold both k and -k, in place, those of a real signal.

    Rounding breaks the symmetry of these columns of a half spectrum slowly, and irfft2 on a GPU is not consistent on such
    input.
    """
    column.copy_(0.5 * (column + column.flip(-1).roll(1, -1).conj()))


def truncate(field: torch.Tensor, resolution: int) -> torch.Tensor:
    """Spectral truncation of fields (..., N, N) to (..., m, m); the coarse Nyquist modes are kept.

    Raises ValueError where m exceeds N or is odd.
    """
    n, m = field.shape[-1], resolution
    if m > n or m % 2:
        raise ValueError(f"cannot truncate {n} x {n} to {m} x {m}: the target must be even and not larger")
    if m == n:
        return field
    spectrum = torch.fft.rfft2(field)[..., : m // 2 + 1]
    kept = torch.cat([spectrum[..., : m // 2, :], spectrum[..., -(m // 2) :, :]], dim=-2)
    return torch.fft.irfft2(kept * (m / n) ** 2, s=(m, m))
