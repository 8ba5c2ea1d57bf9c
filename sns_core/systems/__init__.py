"""The dynamical systems: their equations, their numerics, and the frames that an emulator sees.

`base` defines what every system offers. `kolmogorov`, `two_layer_qg` and, in one space dimension, `kuramoto_sivashinsky` are
the systems of this project. `spectral` holds Fourier transforms and wavenumbers, and `mkl_fft` the fast transforms below them.
"""

from sns_core.systems.base import InstabilityError, System, build_system
from sns_core.systems.kolmogorov import KolmogorovFlow
from sns_core.systems.spectral import SpectralGrid
from sns_core.systems.two_layer_qg import TwoLayerQG

__all__ = ["InstabilityError", "KolmogorovFlow", "SpectralGrid", "System", "TwoLayerQG", "build_system"]
