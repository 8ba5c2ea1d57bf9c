#!/usr/bin/env bash
# SpectralConv of neuraloperator moves a wave to the neighbouring wavenumber on a grid with an odd number of rows
#
# Versions: neuraloperator 2.0.0, torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11
#
# One would guess: a layer that multiplies Fourier coefficients by weights turns a plane wave into a wave with the same
# wavenumber, on each grid that resolves it.
# What happens: the spectrum is shifted by fftshift before the product and by fftshift, not ifftshift, after it. On an
# even number of rows these undo each other. On an odd number the rows come back one place off: with weights equal to
# one, a wave of wavenumber 3 along the rows leaves the layer with wavenumber 2. The last axis is not shifted and is
# right.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "neuraloperator==2.0.0" "torch==2.13.0" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
32 x 32: wave (3, 2) leaves as (3, 2)
33 x 32: wave (3, 2) leaves as (2, 2)
32 x 33: wave (3, 2) leaves as (3, 2)
TEXT
}

actual() {
    python -W ignore - <<'PYTHON'
import torch
from neuralop.layers.spectral_convolution import SpectralConv

layer = SpectralConv(1, 1, n_modes=(12, 12), bias=False)
with torch.no_grad():
    weight = layer.weight.tensor if hasattr(layer.weight, "tensor") else layer.weight
    weight.fill_(1.0)
for rows, columns in (32, 32), (33, 32), (32, 33):
    y = torch.arange(rows)[:, None] * 2 * torch.pi / rows
    x = torch.arange(columns)[None] * 2 * torch.pi / columns
    wave = torch.cos(3 * y + 2 * x)[None, None]
    with torch.no_grad():
        result = layer(wave)
    spectrum = torch.fft.fft2(result[0, 0]).abs()
    row, column = divmod(int(spectrum[:, : columns // 2].argmax()), columns // 2)
    row = row - rows if row > rows // 2 else row
    print(f"{rows} x {columns}: wave (3, 2) leaves as ({row}, {column})")
PYTHON
}

diff <(expected) <(actual)
