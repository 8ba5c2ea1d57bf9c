"""The loss of a student that makes a refined step of SNS in one call.

A calibrated refinement (`methods.calibrated`) calls its surrogate, completes the candidate with noise, and calls its
denoiser. The previous frame and the noise decide where these end, so one network, the student, can learn it. Nothing is
averaged away: noise is an input, and a student without loss left has the law of its teacher. The balance multiplies what
the denoiser leaves, which the student learns, too, and adds noise of its own, which stays outside of the network.

The student is a denoiser that leads pure noise to the next frame in one move, beside a clean previous frame, as in
`training.distillation`. Its teacher can say where a step from *any* frame ends. So the student learns from frames of its own:
it takes fewer than `run_up` steps from a true frame, without gradients, and its teacher shows the next one (Ross, Gordon and Bagnell
2011, arXiv:1011.0686). Few runs are long, because most of what there is to learn is in true frames.
"""

from typing import ClassVar

import torch

from sns_core.methods.balanced import scale_shells
from sns_core.methods.base import FrameSpace, Hardware, Parts
from sns_core.methods.calibrated import CalibratedRefinement
from sns_core.methods.calibration import read_calibration
from sns_core.metrics.lost import LOST_BEYOND
from sns_core.options import Count
from sns_core.training.distillation import weights_of_teacher
from sns_core.training.objectives import ALL_ROWS, DenoiserObjective, TrainingData, without_gradients

RUN_EXPONENT = 3


def mean_run_up(run_up: int) -> float:
    """Return the mean number of steps that a student makes before a training step."""
    return sum(1 - (steps / run_up) ** (1 / RUN_EXPONENT) for steps in range(1, run_up))


class RefinementDistillationObjective(DenoiserObjective):
    """The distance of a student's draw from its teacher's.

    `teacher`: a `CalibratedRefinement` in the student's diffusion. `run_up`: a batch makes floor(run_up u^RUN_EXPONENT) steps
    of the student first, u uniform on [0, 1). `initial_weights`: of the student's network, None for random ones. The other
    arguments are those of `DenoiserObjective`.
    """

    needs: ClassVar = {"surrogate": ("pointwise", "pushforward", "dissipative", "crps"), "denoiser": ("denoiser",)}
    calibrated: ClassVar = True

    def __init__(
        self,
        teacher: CalibratedRefinement,
        *,
        run_up: int = 8,
        initial_weights: dict[str, torch.Tensor] | None = None,
        **denoising,
    ):
        super().__init__(**denoising)
        self.teacher, self.run_up, self.initial_weights = teacher, run_up, initial_weights
        self.note = {"teacher": teacher.calibration.to_dict()}

    @classmethod
    def build(cls, spec: dict, data: TrainingData, *, run_up: Count = 8) -> "RefinementDistillationObjective":
        denoiser = data.models["denoiser"]
        parts = Parts(
            emulation=None,
            system=data.system,
            models=data.models,
            hardware=Hardware(data.device, "float32"),  # a training step is autocast as a whole
            frames=FrameSpace(admissible=data.system.admissible),
            calibration=read_calibration(data.calibration, denoiser.note["data"]),
        )
        return cls(
            CalibratedRefinement.build(parts),
            run_up=run_up,
            initial_weights=weights_of_teacher(spec, denoiser),
            **cls.diffusion_parts(spec, data),
        )

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, 2 or 3, C, H, W): the anchor, if any, and a pair, whose first frame counts."""
        steps = int(self.run_up * torch.rand((), generator=generator) ** RUN_EXPONENT)
        first = batch[rows, -2]
        anchor = self.colour.whiten(batch[rows, 0]) if self.anchored else None

        def white_noise():
            return torch.randn(batch[:, 0].shape, generator=generator)[rows].to(batch)

        with without_gradients():
            frame = first
            for _ in range(steps):
                z, _ = self.draw(network, frame, white_noise(), anchor)
                if self.teacher.returned is not None:
                    z = z + self.teacher.shell_noise(self.teacher.returned, white_noise())
                frame = self.teacher.frames.admissible(self.colour.unwhiten(z))
            # A student that has learnt little may lose the flow on its way.
            alive = frame.abs().flatten(1).amax(1) <= LOST_BEYOND
            frame, noise = torch.where(alive[:, None, None, None], frame, first), white_noise()
            target = self.target(frame, noise, anchor)
        _, output = self.draw(network, frame, noise, anchor)
        return {"loss": self.distance(output - target)}

    def draw(self, network, frame, noise, anchor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the student's next frame in the coordinates of the diffusion, and its output for it, both (B, C, H, W)."""
        noised, levels = self.pair(frame, noise)
        output, _ = network(noised if anchor is None else torch.cat([anchor[:, None], noised], 1))
        output = output.float()
        predicted = self.prediction.noise(output, noised, levels)[:, 1]
        top = levels[0, 1]
        z = (noise - float(self.schedule.sigma(top)) * predicted) / float(self.schedule.signal(top))
        return z, output[:, 1]

    def target(self, frame, noise, anchor) -> torch.Tensor:
        """Return the output (B, C, H, W) with which the student's next frame is its teacher's."""
        teacher = self.teacher
        z_prev, candidate = teacher.whiten(torch.stack([frame, teacher.propose(frame)])).unbind(0)
        z, _ = teacher.before_balance(z_prev, candidate, noise, anchor, [None] * len(frame))
        if teacher.factor is not None:
            z = scale_shells(z, teacher.factor)
        noised, levels = self.pair(frame, noise)
        # The noise of level S with which the student's input stands at the teacher's frame.
        signal, sigma = (float(table(levels[0, 1])) for table in (self.schedule.signal, self.schedule.sigma))
        mixed = torch.stack([noise, (noise - signal * z) / sigma], 1)
        return self.prediction.target(torch.stack([z_prev, z], 1), noised, mixed, levels)[:, 1]

    def pair(self, frame, noise) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean previous frame beside pure noise (B, 2, C, H, W), and their levels (B, 2)."""
        levels = torch.tensor([[0, self.schedule.levels]]).expand(len(frame), -1)
        return torch.stack([self.colour.whiten(frame), noise], 1), levels
