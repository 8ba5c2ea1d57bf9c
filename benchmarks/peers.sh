#!/usr/bin/env bash
# Environments of the packages that the solvers are measured beside: benchmarks/.peers/{jax,pyqg}. Two, because pyqg needs
# numpy < 2. pyqg is compiled: a C compiler and, on Debian, libfftw3-dev.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
if [ ! -e .peers/jax/.done ]; then
    $PYTHON -m venv .peers/jax
    .peers/jax/bin/pip install -q jax-cfd==0.2.1
    touch .peers/jax/.done
fi
if [ ! -e .peers/pyqg/.done ]; then
    $PYTHON -m venv .peers/pyqg
    # Its sources name their version by git tags, which these versions read from the archive.
    .peers/pyqg/bin/pip install -q "numpy<2" "cython<3" "setuptools<70" "setuptools_scm<8" setuptools_git_versioning wheel scipy xarray "pyfftw<0.15"
    .peers/pyqg/bin/pip install -q --no-build-isolation --no-deps pyqg==0.7.2
    touch .peers/pyqg/.done
fi
