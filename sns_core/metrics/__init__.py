"""Measures of flows and of surrogates: spectra, temporal coherence, stability; and the stages that tabulate them."""

from sns_core.metrics.spectra import kinetic_energy_spectrum, spectrum_error
from sns_core.metrics.temporal import rate_of_change, temporal_correlation

__all__ = ["kinetic_energy_spectrum", "rate_of_change", "spectrum_error", "temporal_correlation"]
