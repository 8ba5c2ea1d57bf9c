"""The names that a configuration may use, and the classes behind them. Imports nothing, so reading it costs no torch."""

# Class of a system -> the module that defines it.
SYSTEMS = {
    "KolmogorovFlow": "sns_core.systems.kolmogorov",
    "KuramotoSivashinsky": "sns_core.systems.kuramoto_sivashinsky",
    "TwoLayerQG": "sns_core.systems.two_layer_qg",
    "RecordedFlow": "sns_core.systems.recorded",
}

# Kind of a method -> its class, whose `needs` and `build` say which models and options the method takes.
METHODS = {
    "solver": "sns_core.methods.solver.Solver",
    "pointwise": "sns_core.methods.surrogate.Surrogate",
    "refinement": "sns_core.methods.refinement.Refinement",
    "calibrated_refinement": "sns_core.methods.calibrated.CalibratedRefinement",
    "residual_noise": "sns_core.methods.residual_noise.ResidualNoise",
    "relaxed_spectrum": "sns_core.methods.relaxed_spectrum.RelaxedSpectrum",
    "thermalizer": "sns_core.methods.thermalizer.Thermalizer",
    "generation": "sns_core.methods.generation.Generation",
    "acdm": "sns_core.methods.acdm.ACDM",
    "stochastic_surrogate": "sns_core.methods.stochastic_surrogate.StochasticSurrogate",
    "flow_matching": "sns_core.methods.flow_matching.FlowMatching",
    "distilled_flow_matching": "sns_core.methods.distilled.DistilledFlowMatching",
    "distilled_generation": "sns_core.methods.distilled.DistilledGeneration",
    "distilled_refinement": "sns_core.methods.distilled_refinement.DistilledRefinement",
    "rolling_window": "sns_core.methods.rolling_window.RollingWindow",
    "pde_refiner": "sns_core.methods.pde_refiner.PDERefiner",
    "external": "sns_core.methods.external.External",
}
# Objective of a model -> its class, whose `build` says which options the model takes.
OBJECTIVES = {
    "pointwise": "sns_core.training.objectives.PointwiseObjective",
    "denoiser": "sns_core.training.objectives.DenoiserObjective",
    "unconditional": "sns_core.training.objectives.DenoiserObjective",
    "acdm": "sns_core.training.objectives.DenoiserObjective",
    "pushforward": "sns_core.training.pushforward.PushforwardObjective",
    "dissipative": "sns_core.training.dissipation.DissipativeObjective",
    "crps": "sns_core.training.crps.CRPSObjective",
    "flow_matching": "sns_core.training.increments.FlowMatchingObjective",
    "distilled_flow_matching": "sns_core.training.distillation.FlowDistillationObjective",
    "distilled_generation": "sns_core.training.distillation.GenerationDistillationObjective",
    "distilled_refinement": "sns_core.methods.refinement_student.RefinementDistillationObjective",
    "rolling_window": "sns_core.training.window.WindowObjective",
    "pde_refiner": "sns_core.training.increments.PDERefinerObjective",
}
REFINEMENTS = ("refinement", "calibrated_refinement")  # kinds that refine a surrogate's step by a denoiser
WITHOUT_NETWORKS = ("solver", "external")  # kinds that run no network: they have no number format to set
ALONE = ("pointwise", "stochastic_surrogate")  # kinds that run a surrogate alone

ATTENTION_HEADS = 4  # of a network with attention, whose channels at the bottom they divide among themselves
