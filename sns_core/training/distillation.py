"""The losses of networks that make a long move in one call: many calls distilled into one or two.

A trained network, the teacher, leads noise to a frame in many short moves. Nothing is drawn on the way: the noise and
the previous frame decide where it ends. So another network, the student, can learn where a long move of the teacher
ends. With one move the student learns the teacher's map from noise to frames (Luhman and Luhman 2021,
arXiv:2101.02388). With several moves, each begins at data that are noised to its start, as in progressive distillation
(Salimans and Ho 2022, arXiv:2202.00512); here one training takes the place of their sequence of halvings.

Flow matching. The teacher gives the velocity of increments (`diffusion.increments`). The student learns the mean
velocity of a move from the time tau to tau',

    u(y, tau) = (y' - y) / (tau' - tau),

where y' is the point to which the teacher moves y.

Generation. The teacher is a denoiser of pairs, and leads the next frame from level s to level r, beside a previous
frame that is held at its level (`diffusion.plane`). The student is a denoiser, too. It learns the clean frame x with
which one deterministic step ends where the teacher's steps end (Salimans and Ho 2022, appendix G),

    y' = sqrt(a_r) x + sqrt(1 - a_r) e,   e = (y - sqrt(a_s) x) / sqrt(1 - a_s).
"""

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F

from sns_core.diffusion import Denoiser, Path, Sampler, walk
from sns_core.diffusion.increments import between, move_times, time_features, transport
from sns_core.errors import UserError
from sns_core.options import Bounds, Count, Level, Positive
from sns_core.training.increments import FlowMatchingObjective
from sns_core.training.models import TrainedModel
from sns_core.training.objectives import ALL_ROWS, DenoiserObjective, TrainingData

Moves = Annotated[int, Bounds(1, 100)]  # of a student


def weights_of_teacher(spec: dict, teacher: TrainedModel) -> dict[str, torch.Tensor] | None:
    """Return name -> weight of the teacher's network, a good start for a network of the same specification.

    None where the network of `spec` differs from the teacher's.
    """
    return teacher.network.state_dict() if spec["network"] == teacher.spec["network"] else None


class FlowDistillationObjective(FlowMatchingObjective):
    """The squared error of the mean velocity of one move, which is drawn for each batch.

    `teacher(previous, y, time)`: the velocity of increments y (B, C, m, m) at a time between 0 and 1, without
    gradients. `moves`: those of the student; `teacher_moves`: Heun's moves of the teacher in each of them; `bend`:
    above 1 the last moves are the shorter ones. `initial_weights`: of the student's network, None for random ones.
    """

    needs: ClassVar = {"teacher": ("flow_matching",)}

    def __init__(
        self,
        increment_std: torch.Tensor,
        teacher: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
        *,
        moves: int = 1,
        teacher_moves: int = 4,
        bend: float = 2.0,
        initial_weights: dict[str, torch.Tensor] | None = None,
    ):
        super().__init__(increment_std)
        self.teacher, self.moves, self.teacher_moves = teacher, moves, teacher_moves
        self.initial_weights = initial_weights
        self.times = move_times(moves * teacher_moves, bend)

    @classmethod
    def build(
        cls,
        spec: dict,
        data: TrainingData,
        *,
        moves: Moves = 1,
        teacher_moves: Count = 4,
        bend: Positive = 2.0,
    ) -> "FlowDistillationObjective":
        model = data.models["teacher"]
        return cls(
            data.increment_std,
            model.increments("float32").velocity,  # a training step is autocast as a whole
            moves=moves,
            teacher_moves=teacher_moves,
            bend=bend,
            initial_weights=weights_of_teacher(spec, model),
        )

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, 2, C, H, W)."""
        first = int(torch.randint(self.moves, (), generator=generator)) * self.teacher_moves
        times = self.times[first : first + self.teacher_moves + 1]
        noise = torch.randn(batch[:, 0].shape, generator=generator)[rows].to(batch)
        previous, time = batch[rows, 0], batch.new_full((len(noise),), times[0])
        start = between(noise, self.increments(batch[rows]), time)
        stop = transport(lambda y, time: self.teacher(previous, y, time), start, times, order=2)
        output, _ = network(torch.stack([previous, start], 1), condition=time_features(time))
        return {"loss": F.mse_loss(output[:, 0].float(), (stop - start) / (times[-1] - times[0]))}


class GenerationDistillationObjective(DenoiserObjective):
    """The loss of a denoiser whose target in the next frame is where its teacher's moves end.

    One move of the student is drawn for each batch. `teacher`: the denoiser that is distilled, with the same diffusion;
    `condition_level`: the level at which the previous frame is held; `moves`, `teacher_moves`, `bend` and
    `initial_weights` as in `FlowDistillationObjective`; the other arguments are those of `DenoiserObjective`.
    """

    needs: ClassVar = {"teacher": ("denoiser",)}
    # Not Heun's rule: it repeats a move with the mean of the noise predicted at both ends, and a move from pure noise
    # divides the difference of the two by a signal of nearly zero.
    TEACHER_SAMPLER = Sampler(eta=0.0)

    def __init__(
        self,
        teacher: Denoiser,
        *,
        moves: int = 1,
        teacher_moves: int = 5,
        bend: float = 2.0,
        condition_level: int = 0,
        initial_weights: dict[str, torch.Tensor] | None = None,
        **denoising,
    ):
        super().__init__(**denoising)
        self.teacher, self.teacher_moves, self.initial_weights = teacher, teacher_moves, initial_weights
        self.path = Path.bent(condition_level, self.schedule.levels, moves * teacher_moves, bend).levels

    @classmethod
    def build(
        cls,
        spec: dict,
        data: TrainingData,
        *,
        moves: Moves = 1,
        teacher_moves: Count = 5,
        bend: Positive = 2.0,
        condition_level: Level = 0,
    ) -> "GenerationDistillationObjective":
        model = data.models["teacher"]
        if model.spec["diffusion"] != spec["diffusion"]:
            raise UserError("a student of generation needs the diffusion of its teacher")
        try:
            return cls(
                model.denoiser("float32"),  # a training step is autocast as a whole
                moves=moves,
                teacher_moves=teacher_moves,
                bend=bend,
                condition_level=condition_level,
                initial_weights=weights_of_teacher(spec, model),
                **cls.diffusion_parts(spec, data),
            )
        except ValueError as error:
            raise UserError(f"moves, teacher_moves: {error}") from None

    def draw_levels(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Return the levels (batch, 2) at which a move of the student begins, the same for the whole batch."""
        starts = self.path[: -1 : self.teacher_moves, 0]
        return starts[torch.randint(len(starts), (), generator=generator)].expand(batch, -1)

    def parts_of(self, noised, clean, noise, levels, context):
        """Replace the parts of the next frame by those with which one step ends where the teacher's moves end."""
        first = self.path[:, 0, 1].tolist().index(int(levels[0, 1]))
        path = Path(self.path[first : first + self.teacher_moves + 1])
        anchor = context[:, 0] if self.anchored else None
        _, end = walk(
            self.teacher, path, noised[:, 0], noised[:, 1],
            schedule=self.schedule, generator=[None] * len(noised), anchor=anchor, sampler=self.TEACHER_SAMPLER,
        )  # fmt: skip
        start = noised[:, 1]
        signal, sigma = self.schedule.signal(path.levels[:, 0, 1]), self.schedule.sigma(path.levels[:, 0, 1])
        ratio = sigma[-1] / sigma[0]
        x = (end - float(ratio) * start) / float(signal[-1] - ratio * signal[0])
        e = (start - float(signal[0]) * x) / float(sigma[0])
        return torch.stack([clean[:, 0], x], 1), noised, torch.stack([noise[:, 0], e], 1)
