"""The diffusion of a model, as its configuration describes it."""

from dataclasses import dataclass

import torch

from sns_core.diffusion.colour import NoiseColour
from sns_core.diffusion.prediction import Prediction, build_prediction
from sns_core.diffusion.schedule import NoiseSchedule
from sns_core.grids import Grid


@dataclass(frozen=True)
class Diffusion:
    """Noise levels, coordinates and the quantity that a network predicts. Training and use build them here, so they agree."""

    schedule: NoiseSchedule
    colour: NoiseColour
    prediction: Prediction

    @classmethod
    def build(
        cls, settings: dict, statistics: dict, resolution: Grid, correlation=None, device: torch.device | str = "cpu"
    ) -> "Diffusion":
        """Build the diffusion of a model's `settings` {"schedule", "levels", "colour", "prediction"}.

        `statistics`: those of the data manifest; `resolution`: points per side of a frame, or (H, W); `correlation` (C, K) of
        successive frames in each shell, which the prediction "residual" needs.
        """
        schedule = NoiseSchedule.build(settings["schedule"], settings["levels"])
        colour = NoiseColour(settings["colour"], statistics["shell_amplitude"], resolution, device)
        return cls(
            schedule, colour, build_prediction(settings["prediction"], schedule, colour, statistics, correlation)
        )
