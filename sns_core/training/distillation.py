"""The loss of a network that makes a long move of flow matching in one call: many calls distilled into one or two.

A trained network of the velocity, the teacher, moves noise to an increment in many short moves
(`diffusion.increments`). Nothing is drawn on the way: noise and previous frame decide where it ends. So another
network, the student, can learn the mean velocity of a long move,

    u(y, tau) = (y' - y) / (tau' - tau),

where y' at the time tau' is the point to which the teacher moves y. One call of an exact student, y + (tau' - tau) u,
is worth all calls of the teacher between tau and tau'.

With one move the student learns the teacher's map from noise to increments (Luhman and Luhman 2021, arXiv:2101.02388).
With several moves, each begins at an increment of the data that is noised to its time, as in progressive distillation
(Salimans and Ho 2022, arXiv:2202.00512); here one training takes the place of their sequence of halvings.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F

from sns_core.diffusion.increments import between, move_times, time_features, transport
from sns_core.options import Bounds, Count, Positive
from sns_core.training.increments import FlowMatchingObjective
from sns_core.training.objectives import ALL_ROWS, TrainingData


class DistillationObjective(FlowMatchingObjective):
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
        moves: Annotated[int, Bounds(1, 100)] = 1,
        teacher_moves: Count = 4,
        bend: Positive = 2.0,
    ) -> "DistillationObjective":
        model = data.models["teacher"]
        return cls(
            data.increment_std,
            model.increments("float32").velocity,  # a training step is autocast as a whole
            moves=moves,
            teacher_moves=teacher_moves,
            bend=bend,
            # The velocity of short moves is a good start for a network that is built alike.
            initial_weights=model.network.state_dict() if spec["network"] == model.spec["network"] else None,
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
