#!/usr/bin/env bash
# NavierStokes2D of jax-cfd filters the advection with smooth=False exactly as with smooth=True
#
# Versions: jax-cfd 0.2.1, jax 0.10.2, numpy 2.4.6, Python 3.11
#
# One would guess: "smooth", typed and documented as a boolean, switches the 2/3 rule on and off.
# What happens: the code asks whether it is None. False filters as True does, and only None, which the type does not
# allow, leaves the products alone. The equation of Kuramoto and Sivashinsky in the same file asks for true or false.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "jax-cfd==0.2.1" "jax==0.10.2" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
smooth=False: 0.56 of the coefficients are zero, all equal those of smooth=True: True
smooth=None: 0.00 of the coefficients are zero, all equal those of smooth=True: False
TEXT
}

actual() {
    JAX_PLATFORMS=cpu python -W ignore - <<'PYTHON'
import jax.numpy as jnp
import numpy as np
from jax_cfd.base import grids
from jax_cfd.spectral import equations

grid = grids.Grid((64, 64), domain=((0, 2 * np.pi), (0, 2 * np.pi)))
vorticity = jnp.fft.rfft2(np.random.default_rng(0).normal(size=(64, 64)).astype("float32"))
terms = {
    smooth: np.asarray(equations.NavierStokes2D(1e-3, grid, smooth=smooth).explicit_terms(vorticity))
    for smooth in (True, False, None)
}
for smooth in False, None:
    zero, equal = np.mean(terms[smooth] == 0), np.array_equal(terms[smooth], terms[True])
    print(f"smooth={smooth}: {zero:.2f} of the coefficients are zero, all equal those of smooth=True: {equal}")
PYTHON
}

diff <(expected) <(actual)
