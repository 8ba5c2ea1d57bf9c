"""Transforms by plans that are made once against those of torch.fft."""

import pytest
import torch

from sns_core.systems import mkl_fft, spectral
from sns_core.systems.spectral import PlanarTransforms

needs_mkl = pytest.mark.skipif(mkl_fft._library() is None, reason="torch shows nothing of MKL here")


def transformed(n, columns, dtype):
    """Fields and spectra of random numbers, forth and back."""
    transforms = PlanarTransforms(n)
    g = torch.Generator().manual_seed(n)
    fields = torch.randn(3, 2, n, n, generator=g, dtype=dtype)
    spectra = torch.empty(3, 2, columns, n, dtype=dtype.to_complex())
    back = torch.empty_like(fields)
    transforms.forward(fields, spectra)()
    held = spectra.clone()
    transforms.inverse(spectra, back)()
    assert torch.equal(spectra, held)  # an inverse transform leaves its source as it is
    return fields, spectra, back


@needs_mkl
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [16, 64, 96, 128])
def test_plans_equal_torch_fft(monkeypatch, n, dtype):
    planned = transformed(n, n // 3, dtype)
    monkeypatch.setattr(spectral, "plan", lambda *arguments: None)
    by_torch = transformed(n, n // 3, dtype)
    for by_mkl, reference in zip(planned, by_torch, strict=True):
        torch.testing.assert_close(
            by_mkl, reference, rtol=0, atol=10 * torch.finfo(dtype).eps * float(reference.abs().max())
        )


@pytest.mark.parametrize("n", [32, 96])
def test_spectra_are_those_of_rfft2_transposed(n):
    fields, spectra, back = transformed(n, n // 2 + 1, torch.float64)
    torch.testing.assert_close(spectra, torch.fft.rfft2(fields).transpose(-1, -2), rtol=0, atol=1e-11)
    torch.testing.assert_close(back, fields, rtol=0, atol=1e-13)


@needs_mkl
def test_lines_at_strides_equal_lines_in_a_row():
    lines_in_a_row = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    out = torch.empty(40, 6, dtype=torch.complex128)
    mkl_fft.plan(torch.float64, False, False, 40, 6, (1, 40), (6, 1))(lines_in_a_row.data_ptr(), out.data_ptr())
    torch.testing.assert_close(out.T, torch.fft.fft(lines_in_a_row), rtol=0, atol=1e-13)
