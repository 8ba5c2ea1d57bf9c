#!/usr/bin/env bash
# exponax moves vorticity with a velocity whose curl is minus the vorticity: its Kolmogorov flow is a mirror image
#
# Versions: exponax 0.2.0, jax 0.10.2, numpy 2.4.6, Python 3.11
#
# One would guess: the vorticity w is moved by the velocity u with curl u = dv/dx - du/dy = w, and the forcing
# f = -k cos(k y) is the curl of a force sin(k y) along x, as the documentation says.
# What happens: the forcing has this sign, the velocity the other. Without a forcing the sign cannot be seen from
# statistics (w -> -w turns one flow into the other). With the forcing, the flow is the mirror image in x of the flow
# that jax-cfd computes from the same parameters. Spectra and energies agree, fields and anything that knows left from
# right do not.
#
# Seen on 2026-11-28: the text below, in "expected". The factor is that between the nonlinear part of the tendency and
# -u . grad w, by least squares; it is 1 if the velocity is the one above.
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "exponax==0.2.0" "jax==0.10.2" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
curl u equals w: True
forcing equals -4 cos(4 y): True
factor to -u . grad w: -1.000
TEXT
}

actual() {
    JAX_ENABLE_X64=1 JAX_PLATFORMS=cpu python -W ignore - <<'PYTHON'
import exponax as ex
import numpy as np

N = 64
DT = 1e-5
coordinates = np.arange(N) * 2 * np.pi / N
x, y = np.meshgrid(coordinates, coordinates, indexing="ij")
k = np.fft.fftfreq(N, 1 / N)
kx, ky = np.meshgrid(k, k, indexing="ij")
squared = np.where(kx**2 + ky**2 == 0, 1, kx**2 + ky**2)

w = np.cos(x + 2 * y) + 0.5 * np.sin(3 * x - y) + np.cos(2 * x)
w_hat = np.fft.fft2(w)


def real(spectrum):
    return np.fft.ifft2(spectrum).real


streamfunction = -w_hat / squared
u, v = real(-1j * ky * streamfunction), real(1j * kx * streamfunction)
print("curl u equals w:", np.allclose(real(1j * kx * np.fft.fft2(v) - 1j * ky * np.fft.fft2(u)), w))
advection = -(u * real(1j * kx * w_hat) + v * real(1j * ky * w_hat))

stepper = ex.stepper.KolmogorovFlowVorticity(
    2, 2 * np.pi, N, DT, diffusivity=1e-12, drag=0.0, injection_mode=4, injection_scale=1.0, order=4
)
forcing = np.asarray(stepper(np.zeros((1, N, N))))[0] / DT
print("forcing equals -4 cos(4 y):", np.allclose(forcing, -4 * np.cos(4 * y), atol=1e-3))
tendency = (np.asarray(stepper(w[None]))[0] - w) / DT - forcing
factor = (tendency * advection).sum() / (advection**2).sum()
print(f"factor to -u . grad w: {factor:.3f}")
PYTHON
}

diff <(expected) <(actual)
