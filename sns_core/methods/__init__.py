"""Methods: each maps a frame to the next one, and is composed from parts, never from files.

    Solver           the truth
    Surrogate        a network that feeds on its own output
    StochasticSurrogate   the same with noise as an input: one call is one draw
    Refinement       SNS around a surrogate (paper, algorithm 2)
    CalibratedRefinement  SNS around a surrogate with nothing set by hand
    ResidualNoise    a surrogate plus noise with the spectrum of its error (control)
    RelaxedSpectrum  a surrogate whose shells relax to the power of the data (control)
    Generation       SNS alone, from pure noise (paper, algorithm 3)
    Thermalizer      the level of x_t alone (Pedersen et al. 2025)
    ACDM             both frames at one level (Kohl et al. 2023)
    FlowMatching     an increment that is moved from noise in a few calls (Lipman et al. 2023)
    DistilledFlowMatching  the same in one or two calls
    DistilledGeneration    generation in one or two calls
    DistilledRefinement    a calibrated refinement in one call
    RollingWindow    the next frames together, the nearest one first (Ruhe et al. 2024)
    PDERefiner       an increment that is predicted and then refined (Lippe et al. 2023)
    External         a rollout that was made elsewhere

The names are loaded when they are first used, because most of them need torch.
"""

__all__ = [
    "ACDM",
    "BlindLevels",
    "CalibratedRefinement",
    "Calibration",
    "DistilledFlowMatching",
    "DistilledGeneration",
    "DistilledRefinement",
    "EstimatedLevels",
    "External",
    "FlowMatching",
    "FrameMethod",
    "FrameSpace",
    "Generation",
    "Hardware",
    "IndexedLevels",
    "InitialAnchor",
    "Method",
    "PDERefiner",
    "Parts",
    "Refinement",
    "RelaxedSpectrum",
    "ResampledAnchor",
    "ResidualNoise",
    "RollingWindow",
    "Solver",
    "StepRecord",
    "StochasticSurrogate",
    "Surrogate",
    "Thermalizer",
    "WalkBack",
    "build_method",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sns_core.methods.acdm import ACDM
    from sns_core.methods.anchors import InitialAnchor, ResampledAnchor
    from sns_core.methods.base import FrameMethod, FrameSpace, Hardware, Method, Parts, StepRecord
    from sns_core.methods.build import build_method
    from sns_core.methods.calibrated import CalibratedRefinement
    from sns_core.methods.calibration import Calibration
    from sns_core.methods.denoising import WalkBack
    from sns_core.methods.distilled import DistilledFlowMatching, DistilledGeneration
    from sns_core.methods.distilled_refinement import DistilledRefinement
    from sns_core.methods.external import External
    from sns_core.methods.flow_matching import FlowMatching
    from sns_core.methods.generation import Generation
    from sns_core.methods.levels import BlindLevels, EstimatedLevels, IndexedLevels
    from sns_core.methods.pde_refiner import PDERefiner
    from sns_core.methods.refinement import Refinement
    from sns_core.methods.relaxed_spectrum import RelaxedSpectrum
    from sns_core.methods.residual_noise import ResidualNoise
    from sns_core.methods.rolling_window import RollingWindow
    from sns_core.methods.solver import Solver
    from sns_core.methods.stochastic_surrogate import StochasticSurrogate
    from sns_core.methods.surrogate import Surrogate
    from sns_core.methods.thermalizer import Thermalizer

    return locals()[name]


def __dir__() -> list[str]:
    return __all__
