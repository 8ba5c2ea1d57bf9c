"""The names that a configuration may use, and where they lead. Imports nothing: reading it costs no torch."""

# Class of a system -> the module that defines it.
SYSTEMS = {"KolmogorovFlow": "sns_core.systems.kolmogorov", "TwoLayerQG": "sns_core.systems.two_layer_qg"}

# Stepper of a method -> its class in sns_core.rollout.steppers.
STEPPERS = {
    "solver": "SolverStepper",
    "pointwise": "PointwiseStepper",
    "refinement": "RefinementStepper",
    "thermalizer": "ThermalizerStepper",
    "generation": "GenerationStepper",
    "acdm": "AcdmStepper",
    "foreign": "ForeignStepper",
}

# Role of each model that a stepper asks for -> the objectives of which the model must have been trained for one.
NEEDS = {
    "solver": {},
    "pointwise": {"surrogate": ("pointwise",)},
    "refinement": {"surrogate": ("pointwise",), "denoiser": ("denoiser",)},
    "thermalizer": {"surrogate": ("pointwise",), "denoiser": ("unconditional", "denoiser")},
    "generation": {"denoiser": ("denoiser",)},
    "acdm": {"denoiser": ("acdm", "denoiser")},
    "foreign": {},
}

# Options of a configured method that each stepper takes besides its models.
OPTIONS = {
    "solver": (),
    "pointwise": (),
    "refinement": (
        "path",
        "readout",
        "sampler",
        "stride",
        "anchor",
        "joint",
        "max_level",
        "condition_level",
        "fixed",
        "renoise",
        "gain",
        "every",
    ),
    "thermalizer": ("readout", "sampler", "stride", "anchor", "max_level", "threshold", "every"),
    "generation": ("path", "readout", "sampler", "stride", "anchor", "condition_level"),
    "acdm": ("sampler", "stride", "anchor", "begin"),
    "foreign": ("file",),
}
