"""Diffusion in the plane of noise levels (s2, s1).

`schedule` defines the noise levels and the reverse steps, `colour` the coordinates in which noise is added, `prediction`
the quantity that a network gives, and `diffusion` holds these three of a model. `plane` has the paths and the walk,
`readout` the way from a network's level heads to one level, `amplitude` the sign and the size of a wrong amplitude from
the score, and `oracle` the exact denoiser of a linear Gaussian process.
"""

from sns_core.diffusion.amplitude import amplitude_scores, octaves
from sns_core.diffusion.colour import NoiseColour
from sns_core.diffusion.diffusion import Diffusion
from sns_core.diffusion.oracle import GaussianOracle
from sns_core.diffusion.plane import PATHS, Denoiser, Path, Sampler, walk
from sns_core.diffusion.prediction import Prediction, build_prediction
from sns_core.diffusion.readout import LevelReadout
from sns_core.diffusion.schedule import NoiseSchedule

__all__ = [
    "PATHS",
    "Denoiser",
    "Diffusion",
    "GaussianOracle",
    "LevelReadout",
    "NoiseColour",
    "NoiseSchedule",
    "Path",
    "Prediction",
    "Sampler",
    "amplitude_scores",
    "build_prediction",
    "octaves",
    "walk",
]
