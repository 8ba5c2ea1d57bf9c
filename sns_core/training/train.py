"""The training loop: exactly resumable, because everything random is addressed by the step.

A checkpoint, written every `checkpoint_every` steps and on SIGTERM, holds weights, their exponential moving average,
the optimiser's state and the running sums of the history. It lies in a work folder beside the output, named by
everything that determines the result, and is removed when the model is written.
"""

import csv
import io
import math
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import sns_core
from sns_core.data.pairs import PairSampler, load_dataset
from sns_core.diffusion import NoiseColour, NoiseSchedule, build_prediction
from sns_core.files import digest, provenance, read_tensors, whole_file, write_json, write_tensors
from sns_core.runtime import (
    DamagedFile,
    Team,
    UserError,
    autocast,
    compiled,
    derive_seed,
    generator,
    progress,
    select_device,
    use_threads,
)
from sns_core.training.models import FORMAT, build_network
from sns_core.training.objectives import DenoiserObjective, PointwiseObjective

VALIDATION_BATCHES = 4
CALIBRATION_PAIRS = 512
STUCK_ROWS = 5  # of the history, none better than the first: a spike has killed the network
HISTORY = ("step", "loss", "noise", "level", "validation", "learning_rate")


def learning_rate(step: int, spec: dict) -> float:
    """Linear warm-up, then constant, cosine to zero, or tenfold steps down at half and three quarters of the way."""
    peak, total, kind = spec["learning_rate"], spec["steps"], spec["decay"]
    if step < spec["warmup"]:
        return peak * (step + 1) / spec["warmup"]
    done = (step - spec["warmup"]) / max(1, total - spec["warmup"])
    if kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    if kind == "step":
        return peak * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    if kind == "constant":
        return peak
    raise UserError(f"training.decay: {kind!r} is none of cosine, step, constant")


def _objective(spec: dict, statistics: dict, correlation: list | None, resolution: int, device: torch.device):
    training = spec["training"]
    if spec["objective"] == "pointwise":
        scale = torch.tensor(statistics["increment_std"], dtype=torch.float32, device=device)[:, None, None]
        return PointwiseObjective(scale, training["unroll"], training["input_noise"])
    diffusion = spec["diffusion"]
    schedule = NoiseSchedule.build(diffusion["schedule"], diffusion["levels"])
    colour = NoiseColour(diffusion["colour"], statistics["shell_amplitude"], resolution, device)
    return DenoiserObjective(
        schedule,
        colour,
        diffusion["anchor"],
        training["level_weight"],
        spec["objective"],
        build_prediction(diffusion["prediction"], schedule, colour, statistics, correlation),
        training["shell_weight"],
        training["low_condition_share"],
    )


class _Trainer:
    """Everything that changes while a model is trained, with its checkpoint."""

    def __init__(self, name: str, spec: dict, dataset, seed: int, team: Team, precision: str, compile: bool = False):
        device = team.device
        self.name, self.spec, self.seed, self.device, self.precision = name, spec, seed, device, precision
        self.identity: dict = {}
        self.team, self.rows_of_batch = team, team.rows(spec["training"]["batch"])
        training, channels = spec["training"], dataset.shards[0].shape[2]
        resolution = dataset.shards[0].shape[-1]
        wanted = spec["objective"] != "pointwise" and spec["diffusion"]["prediction"] == "residual"
        self.correlation = dataset.shell_correlation() if wanted else None
        self.objective = _objective(spec, dataset.statistics, self.correlation, resolution, device)
        gap = spec["diffusion"]["anchor_gap"] if self.objective.anchored else None
        self.sampler = PairSampler(
            dataset.first(training["trajectories"], training["frames"]),
            self.objective.frames,
            gap,
            training["symmetries"],
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights", name))
            self.network = build_network(spec, channels, self._landmarks(resolution))
        self.network.check_resolution(resolution)
        self.network.to(device)
        # What is learnt by; whatever else is asked of the network asks it as it is.
        self.learner = compiled(self.network, device) if compile else self.network
        self.average = [p.detach().clone() for p in self.network.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=training["learning_rate"], weight_decay=training["weight_decay"], fused=True
        )
        self.step, self.rows, self.sums, self.began = 0, [], {}, time.monotonic()

    def _landmarks(self, resolution: int) -> torch.Tensor:
        found = self.sampler.system.landmarks(resolution)
        if self.spec["network"].get("landmarks") and not len(found):
            raise UserError(f"models.{self.name}.network.landmarks: {type(self.sampler.system).__name__} has none")
        return found

    def train_step(self, stop: bool = False) -> bool:
        """One step; whether any of the processes was asked to `stop`."""
        training, stream = self.spec["training"], generator(self.seed, "train", self.name, self.step)
        batch = self.sampler.draw(training["batch"], stream).to(self.device)
        rate = learning_rate(self.step, training)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.precision):
            parts = self.objective(self.learner, batch, stream, self.rows_of_batch)
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        *values, stopped = self.team.average(gradients, *(value.item() for value in parts.values()), float(stop))
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), training["clip"])
        self.optimiser.step()
        # The average follows fast at first, so that the random start does not linger in it.
        decay = min(training["ema"], (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.network.parameters()), 1 - decay)
        for key, value in zip(parts, values, strict=True):
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.step += 1
        return stopped > 0

    @torch.no_grad()
    def clean_probability(self, sampler: PairSampler) -> list[list[float]]:
        """Percentiles 0 .. 100, a list a head, of the probability of level 0 on held-out true pairs."""
        pairs = sampler.draw(CALIBRATION_PAIRS, generator(self.seed, "calibration", self.name))
        clean = []
        for batch in pairs.split(self.spec["training"]["batch"]):  # all at once would be the peak memory of a training
            with autocast(self.device, self.precision):
                _, _, logits = self.network.encode(self.objective.colour.whiten(batch.to(self.device)))
            clean.append(logits.double().softmax(-1)[:, :, 0])
        clean = torch.cat(clean)
        steps = torch.linspace(0, 1, 101, dtype=torch.float64, device=clean.device)
        return torch.quantile(clean, steps, dim=0).T.tolist()

    @torch.no_grad()
    def validation_loss(self, sampler: PairSampler) -> float:
        """Loss of the averaged weights on batches that are the same at every step."""
        weights = [p.detach().clone() for p in self.network.parameters()]
        self.adopt(self.average)
        total = 0.0
        for index in range(VALIDATION_BATCHES):
            stream = generator(self.seed, "validation", self.name, index)
            batch = sampler.draw(self.spec["training"]["batch"], stream).to(self.device)
            with autocast(self.device, self.precision):
                total += float(self.objective(self.network, batch, stream)["loss"])
        self.adopt(weights)
        return total / VALIDATION_BATCHES

    @torch.no_grad()
    def adopt(self, weights: list[torch.Tensor]) -> None:
        torch._foreach_copy_(list(self.network.parameters()), weights)

    def log(self, sampler: PairSampler) -> None:
        count = self.step - (self.rows[-1]["step"] if self.rows else 0)
        loss = self.sums["loss"] / count
        if not math.isfinite(loss):
            raise UserError(
                f"models.{self.name}: the loss became {loss} before step {self.step}; lower its learning_rate"
            )
        late = [row["loss"] for row in self.rows[-STUCK_ROWS + 1 :]] + [loss]
        if len(self.rows) >= 2 * STUCK_ROWS and min(late) >= self.rows[0]["loss"]:
            first = f"{self.rows[0]['loss']:.3g} of its first {self.rows[0]['step']} steps"
            raise UserError(
                f"models.{self.name}: its loss is {loss:.3g} after {self.step} steps, no better than the {first}: it has"
                " stopped to learn; lower its learning_rate"
            )
        parts = {key: value / count for key, value in self.sums.items()}
        rate = learning_rate(self.step - 1, self.spec["training"])
        self.rows.append(
            {"step": self.step, **parts, "validation": self.validation_loss(sampler), "learning_rate": rate}
        )
        self.sums = {}

    def save(self, path: Path) -> None:
        state = self.optimiser.state_dict()["state"]
        tensors = {f"weights.{n}": p for n, p in self.network.state_dict().items()}
        tensors |= {f"average.{i}": a for i, a in enumerate(self.average)}
        tensors |= {f"optimiser.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
        progress = {"step": self.step, "rows": self.rows, "sums": self.sums, "seconds": self.seconds}
        write_tensors(path, tensors, {"of": self.identity, **progress})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; DamagedFile for one of another model, data, seed, code or shape."""
        tensors, note = read_tensors(path)
        for name, value in self.identity.items():
            if note.get("of", {}).get(name) != value:
                raise DamagedFile(path, f"a checkpoint of another {name}")
        shapes = {f"weights.{n}": tuple(p.shape) for n, p in self.network.state_dict().items()}
        for name, shape in shapes.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                raise DamagedFile(path, f"a checkpoint of another shape ({name} should be {shape})")
        weights = {n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")}
        self.network.load_state_dict(weights)
        for index, average in enumerate(self.average):
            average.copy_(tensors[f"average.{index}"])
        state: dict[int, dict] = {}
        parameters = list(self.network.parameters())
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                if tensor.ndim:  # the fused optimiser reads it in the order in which the parameter lies in memory
                    tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
                state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step, self.rows, self.sums = note["step"], note["rows"], note["sums"]
        self.began = time.monotonic() - note["seconds"]

    @property
    def seconds(self) -> float:
        """What this training has taken so far, before its call was killed, too."""
        return time.monotonic() - self.began


def train_model(
    *, name: str, spec: dict, manifest: Path, seed: int, output: Path, history: Path, device: str = "auto",
    precision: str = "auto", compile: bool = False, threads: int = 1, code: str = "",
) -> None:  # fmt: skip
    """Train one model of the configuration and write its averaged weights (`output`, with a readable `.json` beside
    it) and its `history` as CSV.

    `spec`: objective, network, training and, for a denoiser, diffusion. `code`: any string that names the code's
    state; checkpoints of another state are not taken up. A killed call goes on from its last checkpoint and gives
    bitwise, on CPU, what an uninterrupted one gives. Started by torchrun, its processes share each batch: the same model to
    rounding, resumed by any number of them. So does `compile`, by which a network learns compiled.
    """
    use_threads(threads)
    with Team(select_device(device)) as team:
        _train(team, name, spec, manifest, seed, Path(output), history, precision, compile, code)


def _train(team: Team, name, spec, manifest, seed, output: Path, history, precision, compile, code) -> None:
    dataset, held_out = (load_dataset(manifest, split) for split in ("train", "validation"))
    identity, training = dataset.manifest["identity"], spec["training"]
    trainer = _Trainer(name, spec, dataset, seed, team, precision, compile)
    trainer.identity = {
        "model": name, "specification": spec, "data manifest": identity, "seed": seed, "precision": precision, "compile": compile,
        "code": code,
    }  # fmt: skip
    validation = PairSampler(held_out, trainer.sampler.frames, trainer.sampler.anchor_gap, training["symmetries"])
    work = output.parent / ".work" / digest(trainer.identity)
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists():
        try:
            trainer.load(checkpoint)
        except DamagedFile as error:
            print(f"{error.reason}; training from the start", file=sys.stderr)

    stop = []
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    try:
        for _ in progress(training["steps"], f"training {name}", start=trainer.step):
            stopped = trainer.train_step(bool(stop))
            if trainer.step % training["log_every"] == 0 or trainer.step == training["steps"]:
                trainer.log(validation)
            due = trainer.step % training["checkpoint_every"] == 0 and trainer.step < training["steps"]
            if team.rank == 0 and (stopped or due):
                trainer.save(checkpoint)
            if stopped:
                raise SystemExit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)

    if team.rank:
        return
    note = {
        "format": FORMAT, "name": name, "spec": spec, "data": identity, "statistics": dataset.statistics,
        "channels": dataset.shards[0].shape[2], "resolution": dataset.shards[0].shape[-1],
        "step": dataset.manifest["emulator"]["step"], "seed": seed, "code": code, "version": sns_core.__version__,
    }  # fmt: skip
    if trainer.correlation is not None:
        note["correlation"] = trainer.correlation
    trainer.adopt(trainer.average)
    if trainer.network.heads is not None:
        note["clean_probability"] = trainer.clean_probability(validation)
    with whole_file(history) as temporary:
        table = io.StringIO(newline="")
        columns = [name for name in HISTORY if name in trainer.rows[0]]
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(trainer.rows)
        temporary.write_text(table.getvalue())
    record = provenance(
        {"model": name, **spec}, seed, str(team.device), processes=team.size, wall_seconds=trainer.seconds
    )
    write_json(output.with_suffix(".json"), {**note, "provenance": record})
    write_tensors(output, trainer.network.state_dict(), note)
    shutil.rmtree(work, ignore_errors=True)
