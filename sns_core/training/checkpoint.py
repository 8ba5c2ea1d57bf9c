"""Checkpoints of a training: all that an exact continuation needs, under a name that identifies the training.

A checkpoint holds the weights, their moving average, the optimiser's state, and the history. `identity` is a dict with
everything that determines the result but the number of steps. The checkpoint's folder is named by a digest of it, and the
checkpoint holds the identity itself, so that a training never goes on from a checkpoint of another one. A training of
another number of steps may go on from it where the learning rates of the steps so far do not depend on that number.
"""

import time
from pathlib import Path

import torch

from sns_core.errors import DamagedFile
from sns_core.files import digest, read_tensors, write_tensors
from sns_core.training.trainer import Trainer, rates_agree


def identify(name: str, spec: dict, **more) -> dict:
    """Return the identity of a training: the model's name, its specification without the number of steps, and `more`."""
    training = {key: value for key, value in spec["training"].items() if key != "steps"}
    return {"model": name, "specification": {**spec, "training": training}, **more}


def checkpoint_path(output: Path, identity: dict) -> Path:
    """Return the path of the checkpoint of the training that writes the model `output`."""
    return output.parent / ".work" / digest(identity) / "checkpoint.safetensors"


def save_checkpoint(path: Path, trainer: Trainer, identity: dict) -> None:
    """Write the state of a training."""
    state = trainer.optimiser.state_dict()["state"]
    tensors = {f"weights.{name}": p for name, p in trainer.network.state_dict().items()}
    tensors |= {f"average.{index}": average for index, average in enumerate(trainer.average)}
    tensors |= {f"optimiser.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}
    progress = {
        "step": trainer.step,
        "rows": trainer.history.rows,
        "sums": trainer.history.sums,
        "seconds": trainer.seconds,
    }
    write_tensors(path, tensors, {"of": identity, "training": trainer.spec["training"], **progress})


def load_checkpoint(path: Path, trainer: Trainer, identity: dict) -> None:
    """Set a trainer to the state of a checkpoint.

    Raises DamagedFile where the file is damaged, where its identity or its shapes are not those of the trainer, or where
    its steps had other learning rates than those of the trainer.
    """
    tensors, note = read_tensors(path)
    for name, value in identity.items():
        if note.get("of", {}).get(name) != value:
            raise DamagedFile(path, f"a checkpoint of another {name}")
    if reason := cannot_go_on(note["step"], note["training"], trainer.spec["training"]):
        raise DamagedFile(path, f"a checkpoint of another number of steps: {reason}")
    for name, parameter in trainer.network.state_dict().items():
        shape = tuple(parameter.shape)
        if f"weights.{name}" not in tensors or tuple(tensors[f"weights.{name}"].shape) != shape:
            raise DamagedFile(path, f"a checkpoint of another shape (weights.{name} should be {shape})")
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    trainer.network.load_state_dict(weights)
    for index, average in enumerate(trainer.average):
        average.copy_(tensors[f"average.{index}"])
    _load_optimiser(trainer, tensors)
    trainer.step = note["step"]
    trainer.history.rows, trainer.history.sums = note["rows"], note["sums"]
    trainer.began = time.monotonic() - note["seconds"]


def cannot_go_on(step: int, before: dict, now: dict) -> str:
    """Return why a training with the settings `now` cannot go on from step `step` of one with the settings `before`.

    Empty where it can: the result then has the same bits as an uninterrupted training.
    """
    if step > now["steps"]:
        return f"{step} steps are done, and {now['steps']} are asked for"
    if not rates_agree(step, before, now):
        return (
            f"{step} steps are done with the learning rates of a training of {before['steps']} steps, and its decay"
            f" {now['decay']!r} gives other rates to one of {now['steps']} steps; only 'constant' can be continued"
        )
    return ""


def _load_optimiser(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    """Set the optimiser's state to the tensors whose names start with `optimiser.`."""
    parameters = list(trainer.network.parameters())
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            if tensor.ndim:
                # The fused optimiser reads its state in the memory layout of the parameter, so the layouts must agree.
                tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
            state.setdefault(int(index), {})[key] = tensor
    groups = trainer.optimiser.state_dict()["param_groups"]
    trainer.optimiser.load_state_dict({"state": state, "param_groups": groups})
