"""Trained models on disk: weights in safetensors, with a note that says how to use them.

The note holds the objective, the network's arguments, the diffusion's settings, the statistics of the data, and the
identity of the data manifest. A file that does not fit its use is refused, and the message says why.
"""

import contextlib
import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sns_core.device import LAYOUT, CompiledForBatchSizes, autocast, can_compile
from sns_core.diffusion import Diffusion, NoiseColour, NoiseSchedule
from sns_core.errors import DamagedFile, UserError
from sns_core.files import of_other_data, read_tensors
from sns_core.grids import Grid
from sns_core.networks import IncrementNetwork, NetworkDenoiser, NetworkSurrogate, PeriodicUNet
from sns_core.plugins import load, objective_class

FORMAT = "sns-model-1"


def build_network(
    spec: dict, channels: int, landmarks: torch.Tensor | None = None, resolution: Grid | None = None
) -> PeriodicUNet:
    """Build the network of a model's specification. The objective decides what the network sees.

    `landmarks` (S, H, W): constant fields that the network sees beside the frames, None or S = 0 for none. `resolution`: points
    per side of a frame, or (H, W), for a network that fits no other. Raises UserError for an unknown objective.
    """
    shape = {"channels": channels, "resolution": resolution, **spec["network"]}
    shape["landmarks"] = landmarks if landmarks is not None and len(landmarks) else None
    try:
        objective = load(objective_class(spec["objective"]))
    except ValueError as error:
        raise UserError(str(error)) from None
    return PeriodicUNet(**objective.network_arguments(spec), **shape)


@dataclass
class TrainedModel:
    """A network in evaluation mode, and the note in its file.

    `compile`: whether networks that run for many calls are compiled.
    """

    network: PeriodicUNet
    note: dict
    device: torch.device
    compile: bool = False

    @property
    def spec(self) -> dict:
        """The model's specification in the configuration."""
        return self.note["spec"]

    def per_channel(self, name: str) -> torch.Tensor:
        """Return the statistic `name` of the training split as a tensor (C, 1, 1)."""
        return torch.tensor(self.note["statistics"][name], dtype=torch.float32, device=self.device)[:, None, None]

    @functools.cached_property
    def diffusion(self) -> Diffusion:
        """The diffusion that the model was trained in."""
        note = self.note
        return Diffusion.build(
            self.spec["diffusion"], note["statistics"], note["resolution"], note.get("correlation"), self.device
        )

    def schedule(self) -> NoiseSchedule:
        """The noise levels of the model's diffusion."""
        return self.diffusion.schedule

    def colour(self) -> NoiseColour:
        """The coordinates of the model's diffusion."""
        return self.diffusion.colour

    def denoiser(self, precision: str = "auto") -> NetworkDenoiser:
        """Build the denoiser around the network, for many calls."""
        network, context = self.running(precision)
        return NetworkDenoiser(network, self.spec["diffusion"]["anchor"], context, self.diffusion.prediction)

    def surrogate(self, precision: str = "auto") -> NetworkSurrogate:
        """The network as a function: frames (B, C, m, m), and its noise if it takes any -> next frames."""
        network, context = self.running(precision)
        return NetworkSurrogate(network, self.per_channel("increment_std"), context)

    def increments(self, precision: str = "auto") -> IncrementNetwork:
        """The network as a function of the previous frame and an increment on its way."""
        network, context = self.running(precision)
        return IncrementNetwork(network, self.per_channel("increment_std"), context)

    def running(self, precision: str = "auto") -> tuple[PeriodicUNet, contextlib.AbstractContextManager]:
        """Return the network for many calls, and the context manager in which to call it.

        The weights of the returned network already have the precision to which the context would cast them at every
        call. The results have the same bits, with fewer copies.
        """
        context = autocast(self.device, precision)
        half, compiling = isinstance(context, torch.autocast), self.compile and can_compile(self.device)
        network = copy.deepcopy(self.network) if half or compiling else self.network
        for name, module in network.named_modules():
            # The level heads compute in float32 in any context, so their weights stay as they are.
            if half and isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("heads."):
                module.to(context.fast_dtype)
        if compiling:
            network.to(memory_format=LAYOUT)
            network.encode, network.decode = CompiledForBatchSizes(self.device, network.encode, network.decode)
        return network, context


def load_model(
    path: Path,
    objective: str | tuple[str, ...],
    device: torch.device | str = "cpu",
    identity: str | None = None,
    compile: bool = False,
) -> TrainedModel:
    """Read a model file.

    `objective`: the objective that the model must have been trained for, or several objectives that will do.
    `identity`: the identity of the data manifest that the model must have been trained on (None: any). `compile`: as in
    TrainedModel.

    Raises UserError where the file is missing, or the model has another objective or was trained on other data, and
    DamagedFile where the file is truncated, is no model of this project, or has other shapes than its note says.
    """
    return restore_model(path, *read_tensors(path), objective, device, identity, compile)


def load_models(
    needs: dict[str, tuple[str, ...]],
    files: dict[str, Path],
    user: str,
    device: torch.device | str = "cpu",
    identity: str | None = None,
    compile: bool = False,
) -> dict[str, TrainedModel]:
    """Read the model of each role that `user`, a method or a model, needs: role -> objectives.

    Further arguments and errors are those of `load_model`. Raises UserError for a role without a file.
    """
    if missing := needs.keys() - files.keys():
        raise UserError(f"{user} needs a {' and a '.join(sorted(missing))}; name one under models")
    return {role: load_model(files[role], objectives, device, identity, compile) for role, objectives in needs.items()}


def restore_model(
    path: Path,
    tensors: dict[str, torch.Tensor],
    note: dict,
    objective: str | tuple[str, ...],
    device: torch.device | str = "cpu",
    identity: str | None = None,
    compile: bool = False,
) -> TrainedModel:
    """Return the model of tensors and a note, which were read from the file `path`. Further arguments and errors are those of
    `load_model`."""
    if note.get("format") != FORMAT:
        raise DamagedFile(path, f"not a model of this project (its format is not {FORMAT!r})")
    _check_note(path, note)
    objectives, trained_for = (objective,) if isinstance(objective, str) else objective, note["spec"]["objective"]
    if trained_for not in objectives:
        needed = " or ".join(map(repr, objectives))
        raise UserError(f"{path}: a model with objective {trained_for!r} where {needed} is needed")
    if identity is not None and note["data"] != identity:
        raise of_other_data(path, "trained", note["data"])
    _check_shapes(path, note, tensors)
    network = build_network(note["spec"], note["channels"], tensors.get("landmarks"), note["resolution"])
    network.load_state_dict(tensors)
    return TrainedModel(network.eval().requires_grad_(False).to(device), note, torch.device(device), compile)


def _check_note(path: Path, note: dict) -> None:
    """Raise DamagedFile where the note of a model lacks what its users read."""
    kinds = {"spec": dict, "statistics": dict, "data": str, "channels": int, "resolution": int | list}
    wrong = [key for key, kind in kinds.items() if not isinstance(note.get(key), kind)]
    spec = note.get("spec") if "spec" not in wrong else {}
    wrong += [
        f"spec.{key}" for key, kind in (("objective", str), ("network", dict)) if not isinstance(spec.get(key), kind)
    ]
    if wrong:
        raise DamagedFile(path, f"its note lacks {', '.join(wrong)}")


def _check_shapes(path: Path, note: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Raise DamagedFile where the network that a note describes has other shapes than the tensors.

    The network is built without memory for its weights, so that a wrong width costs nothing. A network has more tensors than
    blocks, so a wrong number of blocks is known before any block is built.
    """
    try:
        shape = note["spec"]["network"]
        blocks = int(shape.get("blocks", 1)) * max(1, len(shape.get("multipliers", ())))
        if blocks > len(tensors):
            raise ValueError(f"{blocks} blocks in {len(tensors)} tensors")
        with torch.device("meta"):
            network = build_network(note["spec"], note["channels"], tensors.get("landmarks"), note["resolution"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"its note describes no network of this project ({error})") from None
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != stored:
        name = next(n for n in sorted(expected.keys() | stored.keys()) if expected.get(n) != stored.get(n))
        raise DamagedFile(
            path,
            f"a checkpoint of another shape ({name} is {stored.get(name, 'absent')}, "
            f"its configuration asks for {expected.get(name, 'none')})",
        )
