"""The state of a training, and one step of it.

Everything random is addressed by (seed, purpose, model, step). A training that goes on from a checkpoint therefore
needs the number of its step, but no state of a random generator.
"""

import math
import time
from pathlib import Path

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sns_core.data.pairs import Dataset, PairSampler
from sns_core.device import autocast, compiled
from sns_core.errors import UserError
from sns_core.grids import Grid, grid_of
from sns_core.processes import ProcessGroup
from sns_core.streams import derive_seed, generator
from sns_core.training.history import History
from sns_core.training.models import TrainedModel, build_network
from sns_core.training.objectives import TrainingData, build_objective

VALIDATION_BATCHES = 4
CALIBRATION_PAIRS = 512


def learning_rate(step: int, training: dict) -> float:
    """Return the learning rate of a step, for the settings `training` of a model.

    The rate rises linearly during the warm-up. Then, by `decay`, it stays constant ("constant"), falls to zero as a
    cosine ("cosine"), or falls tenfold after half and again after three quarters of the steps ("step"). Raises
    UserError for another `decay`.
    """
    peak, total, kind = training["learning_rate"], training["steps"], training["decay"]
    if step < training["warmup"]:
        return peak * (step + 1) / training["warmup"]
    done = (step - training["warmup"]) / max(1, total - training["warmup"])
    if kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    if kind == "step":
        return peak * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    if kind == "constant":
        return peak
    raise UserError(f"training.decay: {kind!r} is none of cosine, step, constant")


def rates_agree(steps: int, left: dict, right: dict) -> bool:
    """Return whether two trainings with these settings have the same learning rate in each of their first `steps` steps."""
    return all(learning_rate(step, left) == learning_rate(step, right) for step in range(steps))


class Trainer:
    """Everything that changes while a model is trained.

    `name` and `spec`: the model's name and its specification in the configuration; `dataset`: the training split;
    `seed`: the run's seed; `processes`: the processes that share the batches; `precision`: as in `autocast`; `compile`:
    whether training steps run a compiled network; `models`: role -> trained model that the objective needs; `calibration`: the
    file of the measurements that its teacher follows. Raises
    UserError where the network does not fit the data.
    """

    def __init__(
        self,
        name: str,
        spec: dict,
        dataset: Dataset,
        seed: int,
        processes: ProcessGroup,
        precision: str,
        compile: bool = False,
        models: dict[str, TrainedModel] | None = None,
        calibration: Path | None = None,
    ):
        device, training = processes.device, spec["training"]
        self.name, self.spec, self.seed, self.device, self.precision = name, spec, seed, device, precision
        self.processes, self.rows_of_batch = processes, processes.rows(training["batch"])
        channels, resolution = dataset.shards[0].shape[2], grid_of(dataset.shards[0].shape)
        residual = spec.get("diffusion", {}).get("prediction") == "residual"
        self.correlation = dataset.shell_correlation() if residual else None
        data = TrainingData(
            dataset.statistics, self.correlation, resolution, device, models or {}, calibration, dataset.system
        )
        self.objective = build_objective(spec, data)
        self.sampler = PairSampler(
            dataset.first(training["trajectories"], training["frames"]),
            self.objective.frames,
            spec["diffusion"]["anchor_gap"] if self.objective.anchored else None,
            training["symmetries"],
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights", name))
            self.network = build_network(spec, channels, self._constant_fields(resolution), resolution)
        self.network.check_resolution(resolution)
        if self.objective.initial_weights is not None:
            self.network.load_state_dict(self.objective.initial_weights)
        self.network.to(device)
        # Only training steps run the compiled network. Validation and calibration run `self.network`: they are rare,
        # and compiling their other batch sizes would take longer than it saves.
        self.training_network = compiled(self.network, device) if compile else self.network
        self.average = [p.detach().clone() for p in self.network.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=training["learning_rate"], weight_decay=training["weight_decay"], fused=True
        )
        self.step, self.history, self.began = 0, History(name, training["warmup"]), time.monotonic()

    def _constant_fields(self, resolution: Grid) -> torch.Tensor | None:
        """Return the constant fields (S, H, W) that the network sees beside the frames, or None.

        They are the static fields of the data or, where the network has `landmarks`, those of the system.
        """
        if self.sampler.dataset.static is not None:
            return self.sampler.dataset.static
        return self.sampler.system.landmarks(resolution) if self.spec["network"].get("landmarks") else None

    def train_step(self, stop: bool = False) -> bool:
        """Train for one step: batch, loss, gradients of all processes, clipping, optimiser, moving average.

        `stop`: whether this process has been asked to stop. Returns whether any of the processes has been asked.
        """
        training, parameters = self.spec["training"], list(self.network.parameters())
        stream = generator(self.seed, "train", self.name, self.step)
        batch = self.sampler.draw(training["batch"], stream).to(self.device)

        with autocast(self.device, self.precision):
            losses = self.objective(self.training_network, batch, stream, self.rows_of_batch)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()

        gradients = [p.grad for p in parameters if p.grad is not None]
        *values, any_stop = self.processes.average(gradients, *(v.item() for v in losses.values()), float(stop))
        torch.nn.utils.clip_grad_norm_(parameters, training["clip"])

        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, training)
        self.optimiser.step()

        # The average follows the weights quickly at first, so that the random initial weights do not stay in it.
        decay = min(training["ema"], (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(self.average, parameters, None)

        self.history.add(dict(zip(losses, values, strict=True)))
        self.step += 1
        return any_stop > 0

    def log(self, validation: PairSampler) -> None:
        """Add a row to the history. Raise UserError where the loss or a weight is not finite or the network no longer learns."""
        means = self.history.means(self.step)
        # The loss of a step is that of the weights before it, so the last step of a training may spoil them unseen.
        if not all(bool(weight.isfinite().all()) for weight in self.average):
            raise UserError(
                f"models.{self.name}: the weights are no finite numbers after {self.step} steps; lower its learning_rate"
            )
        self.history.add_row(
            step=self.step,
            **means,
            validation=self.validation_loss(validation),
            learning_rate=learning_rate(self.step - 1, self.spec["training"]),
        )

    @torch.no_grad()
    def validation_loss(self, sampler: PairSampler) -> float:
        """Return the loss of the averaged weights on held-out batches, which are the same at every step."""
        weights = [p.detach().clone() for p in self.network.parameters()]
        self.use_weights(self.average)
        total = 0.0
        for index in range(VALIDATION_BATCHES):
            stream = generator(self.seed, "validation", self.name, index)
            batch = sampler.draw(self.spec["training"]["batch"], stream).to(self.device)
            with autocast(self.device, self.precision):
                total += float(self.objective(self.network, batch, stream)["loss"])
        self.use_weights(weights)
        return total / VALIDATION_BATCHES

    @torch.no_grad()
    def clean_probability(self, sampler: PairSampler) -> list[list[float]]:
        """Return the percentiles 0 .. 100 of the probability of level 0 on held-out true pairs, one list per head."""
        pairs = sampler.draw(CALIBRATION_PAIRS, generator(self.seed, "calibration", self.name))
        clean = []
        # Batches of the training's size keep the memory below the peak of a training step.
        for batch in pairs.split(self.spec["training"]["batch"]):
            with autocast(self.device, self.precision):
                _, _, logits = self.network.encode(self.objective.colour.whiten(batch.to(self.device)))
            clean.append(logits.double().softmax(-1)[:, :, 0])
        clean = torch.cat(clean)
        steps = torch.linspace(0, 1, 101, dtype=torch.float64, device=clean.device)
        return torch.quantile(clean, steps, dim=0).T.tolist()

    @torch.no_grad()
    def use_weights(self, weights: list[torch.Tensor]) -> None:
        """Copy `weights`, one tensor per parameter, into the network."""
        for parameter, weight in zip(self.network.parameters(), weights, strict=True):
            parameter.copy_(weight)

    @property
    def seconds(self) -> float:
        """The time in seconds that this training has taken so far, with all calls that were interrupted."""
        return time.monotonic() - self.began
