#!/usr/bin/env bash
# Make the environments of the peers of the solvers: benchmarks/.peers/{jax,pyqg}. There are two, because pyqg needs
# numpy < 2. pip compiles pyqg, which needs a C compiler and, on Debian, libfftw3-dev.
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
