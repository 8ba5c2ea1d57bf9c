"""The names that a configuration may use, and where they lead. Imports nothing: reading it costs no torch."""

# Class of a system -> the module that defines it.
SYSTEMS = {"KolmogorovFlow": "sns_core.systems.kolmogorov", "TwoLayerQG": "sns_core.systems.two_layer_qg"}

# Role of each model that a stepper asks for -> the objective that the model must have been trained for.
NEEDS = {
    "solver": {},
    "pointwise": {"surrogate": "pointwise"},
    "refinement": {"surrogate": "pointwise", "denoiser": "denoiser"},
    "generation": {"denoiser": "denoiser"},
}
