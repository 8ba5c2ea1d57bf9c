"""The dynamical systems: what is simulated, with which numerics, and what an emulator sees of it."""

from sns_core.systems.base import InstabilityError, System, build_system
from sns_core.systems.kolmogorov import KolmogorovFlow
from sns_core.systems.spectral import SpectralGrid
from sns_core.systems.two_layer_qg import TwoLayerQG

__all__ = ["InstabilityError", "KolmogorovFlow", "SpectralGrid", "System", "TwoLayerQG", "build_system"]
