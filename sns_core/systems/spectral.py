"""Fourier representation of real fields on a doubly periodic square.

A field f with N x N points is represented by its half spectrum f_hat = rfft2(f) of shape (N, N // 2 + 1). The real
transform runs over the last axis. Wavenumbers are angular: 2 pi / length times an integer. Row N / 2 holds the
wavenumber -N / 2. The Nyquist modes are kept.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from sns_core.grids import Grid, grid_shape
from sns_core.systems.mkl_fft import plan


class SpectralGrid:
    """Wavenumbers of an N x N grid on [0, length)^2, for spectra of shape (..., N, N // 2 + 1).

    Attributes: `k_first` (N, 1) and `k_last` (1, N // 2 + 1), the wavenumbers along the two array axes; `k_squared`
    (N, N // 2 + 1); `inverse_laplacian`, which is -1 / k^2, and 0 for the mean; `spacing`, the distance of two points.
    Raises ValueError where `resolution` is odd or below 4.
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
        """Return the half spectra (..., N, N // 2 + 1) of fields (..., N, N)."""
        return torch.fft.rfft2(field)

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the fields (..., N, N) of half spectra (..., N, N // 2 + 1)."""
        return torch.fft.irfft2(spectrum, s=(self.resolution, self.resolution))


class PlanarTransforms:
    """Fast transforms between many fields (..., N, N) and transposed half spectra (..., M, N).

    In a transposed spectrum, the axis of the complex transform is the last one. Only the first M <= N // 2 + 1
    wavenumbers of the real axis are stored; the others are zero. The numbers equal those of `rfft2` and `irfft2` to
    rounding; in float32 with MKL, the bits were equal in all measurements.

    Each method takes two contiguous tensors and returns a function. A call of this function transforms the current
    content of the first tensor into the second one. With the plans of `mkl_fft`, a field passes through the transforms
    of both axes while it is in the cache, and a call allocates no memory.
    """

    # Up to this N, contiguous transforms and a transposed copy are faster than transforms with strided output.
    copy_limit = 64

    def __init__(self, resolution: int):
        self.resolution = resolution

    def inverse(self, spectra: torch.Tensor, fields: torch.Tensor) -> Callable[[], None]:
        """Return a function that transforms the spectra (..., M, N) into the fields (..., N, N)."""
        n, m, half, dtype = self.resolution, spectra.shape[-2], self.resolution // 2 + 1, fields.dtype
        count = fields.numel() // n**2
        together = count if n <= self.copy_limit or not fields.is_cpu else 1
        rows = fields.is_cpu and plan(dtype, True, True, n, n * together, (1, half), (1, n))
        if not rows:
            padded = spectra.new_zeros(*spectra.shape[:-2], n, half)

            def by_torch():
                padded[..., :m].copy_(torch.fft.ifft(spectra).transpose(-1, -2))
                fields.copy_(torch.fft.irfft(padded, n=n))

            return by_torch
        padded, source, target = spectra.new_zeros(together, n, half), _places(spectra, count), _places(fields, count)
        between = padded.data_ptr()
        if n <= self.copy_limit:
            columns, lines = plan(dtype, False, True, n, m * count, (1, n), (1, n)), spectra.new_empty(count, m, n)
            copy = partial(padded[..., :m].copy_, lines.transpose(-1, -2))
            calls = [partial(columns, source[0], lines.data_ptr()), copy, partial(rows, between, target[0])]
        else:
            columns = plan(dtype, False, True, n, m, (1, n), (half, 1))
            calls = [
                call
                for spectrum, field in zip(source, target, strict=True)
                for call in (partial(columns, spectrum, between), partial(rows, between, field))
            ]
        return partial(_in_order, calls, (spectra, padded, fields))

    def forward(self, fields: torch.Tensor, spectra: torch.Tensor) -> Callable[[], None]:
        """Return a function that transforms the fields (..., N, N) into the spectra (..., M, N)."""
        n, m, half, dtype = self.resolution, spectra.shape[-2], self.resolution // 2 + 1, fields.dtype
        count = fields.numel() // n**2
        together = count if n <= self.copy_limit else 1
        rows = fields.is_cpu and plan(dtype, True, False, n, n * together, (1, n), (1, half))
        if not rows:

            def by_torch():
                spectra.copy_(torch.fft.fft(torch.fft.rfft(fields)[..., :m], dim=-2).transpose(-1, -2))

            return by_torch
        full, source, target = spectra.new_empty(together, n, half), _places(fields, count), _places(spectra, count)
        between = full.data_ptr()
        if n <= self.copy_limit:
            columns, lines = plan(dtype, False, False, n, m * count, (1, n), (1, n)), spectra.new_empty(count, m, n)
            copy = partial(lines.copy_, full[..., :m].transpose(-1, -2))
            calls = [partial(rows, source[0], between), copy, partial(columns, lines.data_ptr(), target[0])]
        else:
            columns = plan(dtype, False, False, n, m, (half, 1), (1, n))
            calls = [
                call
                for field, spectrum in zip(source, target, strict=True)
                for call in (partial(rows, field, between), partial(columns, between, spectrum))
            ]
        return partial(_in_order, calls, (fields, full, spectra))


def _places(tensor: torch.Tensor, count: int) -> list[int]:
    """Return the addresses of the `count` equal parts of a contiguous tensor."""
    return [tensor.data_ptr() + index * tensor.nbytes // count for index in range(count)]


def _in_order(calls: list[Callable[[], object]], memory: tuple[torch.Tensor, ...]) -> None:
    """Make all calls in order. `memory` keeps the tensors alive that the calls know only by their addresses."""
    for call in calls:
        call()


def symmetrise(column: torch.Tensor) -> None:
    """Make columns (..., N) of a half spectrum that hold both k and -k those of a real signal, in place.

    Rounding slowly breaks the symmetry of these columns, and `irfft2` on a GPU is not consistent on such input.
    """
    column.copy_(0.5 * (column + column.flip(-1).roll(1, -1).conj()))


def truncate(field: torch.Tensor, resolution: Grid) -> torch.Tensor:
    """Return the spectral truncation to a coarser grid, (..., h, w), of fields (..., H, W). The coarse Nyquist modes are kept.

    Raises ValueError where the grid is not coarser, or has an odd number of points along an axis with more than one.
    """
    (height, width), (rows, columns) = field.shape[-2:], grid_shape(resolution)
    if any(m > n or (m % 2 and n > 1) for n, m in ((height, rows), (width, columns))):
        raise ValueError(
            f"cannot truncate {height} x {width} to {rows} x {columns}: the target must be even and not larger"
        )
    if (height, width) == (rows, columns):
        return field
    spectrum = torch.fft.rfft2(field)[..., : columns // 2 + 1]
    if height > 1:
        spectrum = torch.cat([spectrum[..., : rows // 2, :], spectrum[..., -(rows // 2) :, :]], dim=-2)
    return torch.fft.irfft2(spectrum * ((rows / height) * (columns / width)), s=(rows, columns))
