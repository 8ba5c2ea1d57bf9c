"""Trained models on disk: weights in safetensors with a note that says everything needed to use them rightly.

The note holds the objective, the network's arguments, the diffusion's settings, the statistics of the data and the
identity of the manifest that they came from. A file is refused, with the reason, where it does not fit its use.
"""

import contextlib
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sns_core.diffusion import NoiseColour, NoiseSchedule, Prediction, build_prediction
from sns_core.files import read_tensors
from sns_core.networks import NetworkDenoiser, PeriodicUNet
from sns_core.runtime import LAYOUT, CompiledForBatchSizes, DamagedFile, UserError, autocast, can_compile

FORMAT = "sns-model-1"
OBJECTIVES = ("pointwise", "denoiser", "unconditional", "acdm")


def build_network(spec: dict, channels: int, landmarks: torch.Tensor | None = None) -> PeriodicUNet:
    """The network of a model's specification; which frames it sees follows from the objective. `landmarks`: the system's, for a
    network that is told them."""
    shape = {"channels": channels, **spec["network"]}
    shape["landmarks"] = landmarks if shape.get("landmarks") else None
    if spec["objective"] == "pointwise":
        return PeriodicUNet(frames_in=1, frames_out=1, levels=None, **shape)
    if spec["objective"] not in OBJECTIVES:
        raise UserError(f"unknown objective {spec['objective']!r}; known: {', '.join(OBJECTIVES)}")
    diffusion, frames = spec["diffusion"], 1 if spec["objective"] == "unconditional" else 2
    return PeriodicUNet(
        frames_in=frames + diffusion["anchor"], frames_out=frames, levels=diffusion["levels"],
        level_conditioned=spec["objective"] == "acdm", **shape,
    )  # fmt: skip


@dataclass
class TrainedModel:
    """A network in evaluation mode and the note it was saved with."""

    network: PeriodicUNet
    note: dict
    device: torch.device
    compile: bool = False  # whether networks that run for many calls are compiled

    @property
    def spec(self) -> dict:
        return self.note["spec"]

    def per_channel(self, name: str) -> torch.Tensor:
        """A statistic of the training split as (C, 1, 1)."""
        return torch.tensor(self.note["statistics"][name], dtype=torch.float32, device=self.device)[:, None, None]

    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.build(self.spec["diffusion"]["schedule"], self.spec["diffusion"]["levels"])

    def colour(self) -> NoiseColour:
        diffusion, statistics = self.spec["diffusion"], self.note["statistics"]
        return NoiseColour(diffusion["colour"], statistics["shell_amplitude"], self.note["resolution"], self.device)

    def prediction(self) -> Prediction:
        kind, note = self.spec["diffusion"]["prediction"], self.note
        return build_prediction(kind, self.schedule(), self.colour(), note["statistics"], note.get("correlation"))

    def denoiser(self, precision: str = "auto") -> NetworkDenoiser:
        network, context = self.running(precision)
        return NetworkDenoiser(network, self.spec["diffusion"]["anchor"], context, self.prediction())

    def running(self, precision: str = "auto") -> tuple[PeriodicUNet, contextlib.AbstractContextManager]:
        """The network for many calls, and the context to call it in.

        Its weights have the precision that the context would cast them to at every call: the same bits, fewer copies.
        """
        context = autocast(self.device, precision)
        half, compiling = isinstance(context, torch.autocast), self.compile and can_compile(self.device)
        network = copy.deepcopy(self.network) if half or compiling else self.network
        for name, module in network.named_modules():
            # The heads compute in float32 in any context.
            if half and isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("heads."):
                module.to(context.fast_dtype)
        if compiling:
            network.to(memory_format=LAYOUT)
            network.encode, network.decode = CompiledForBatchSizes(self.device, network.encode, network.decode)
        return network, context


def load_model(
    path: Path, objective: str | tuple[str, ...], device: torch.device | str = "cpu", identity: str | None = None,
    compile: bool = False,
) -> TrainedModel:  # fmt: skip
    """Read a model file; `objective`: one that it must have been trained for, or several of which one will do.

    Raises UserError where the file is missing, truncated, foreign, of another objective or shape than it says, or
    (with `identity`) trained on other data.
    """
    tensors, note = read_tensors(path)
    if note.get("format") != FORMAT:
        raise DamagedFile(path, f"not a model of this project (its format is not {FORMAT!r})")
    wanted, found = (objective,) if isinstance(objective, str) else objective, note["spec"]["objective"]
    if found not in wanted:
        raise UserError(f"{path}: a model with objective {found!r} where {' or '.join(map(repr, wanted))} is needed")
    if identity is not None and note["data"] != identity:
        raise DamagedFile(path, f"trained on other data than this run's (manifest {note['data'][:12]})")
    network = build_network(note["spec"], note["channels"], tensors.get("landmarks"))
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        name = next(n for n in sorted(wanted.keys() | found.keys()) if wanted.get(n) != found.get(n))
        raise DamagedFile(
            path,
            f"a checkpoint of another shape ({name} is {found.get(name, 'absent')}, "
            f"its configuration asks for {wanted.get(name, 'none')})",
        )
    network.load_state_dict(tensors)
    return TrainedModel(network.eval().requires_grad_(False).to(device), note, torch.device(device), compile)
