"""Measures of flows and of surrogates: spectra, temporal coherence, stability; and the stages that tabulate them.

The functions below take torch tensors (`torch.from_numpy` makes them of arrays); `spectrum_error` takes arrays, too.
"""

__all__ = ["kinetic_energy_spectrum", "rate_of_change", "spectrum_error", "temporal_correlation"]


def __getattr__(name: str):
    """Load one of the names above when it is used: most of them need torch, and a stage that draws a table does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sns_core.metrics.distances import spectrum_error
    from sns_core.metrics.spectra import kinetic_energy_spectrum
    from sns_core.metrics.temporal import rate_of_change, temporal_correlation

    return locals()[name]
