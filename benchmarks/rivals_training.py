"""Processor seconds of the trainings of config/rivals.yaml: python benchmarks/rivals_training.py [--rounds 5]

All networks train in turn, a few steps each, on frames of white noise in the demo's size: the cost of a training does not
depend on their values. Prints a table of the medians, and what whole trainings take with those of their teachers.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import yaml
from gpu import noise_dataset

from sns_core.device import use_threads
from sns_core.processes import ProcessGroup
from sns_core.training.models import TrainedModel
from sns_core.training.trainer import Trainer
from sns_workflow.config_models import teachers_of, used_models, with_teachers
from sns_workflow.configuration import merge, read

ROOT = Path(__file__).parents[1]
STEPS = 4  # of a network in one round


def trainers_of(models: dict, names: list[str], system: dict, resolution: int, frames: int) -> dict[str, Trainer]:
    """Return a trainer for each model, teachers first; a teacher is a network with its first random weights."""
    dataset, trainers = noise_dataset(system, resolution, frames=frames), {}
    for name in sorted(names, key=lambda name: len(with_teachers([name], models))):
        spec = models[name] | {"training": {**models[name]["training"], "trajectories": None, "frames": None}}
        teachers = {}
        for role, teacher in teachers_of(spec).items():
            trained = trainers[teacher]
            note = {"spec": trained.spec, "statistics": dataset.statistics, "resolution": resolution}
            note["correlation"] = trained.correlation
            teachers[role] = TrainedModel(trained.network, note, trained.device)
        trainers[name] = Trainer(name, spec, dataset, 0, ProcessGroup(torch.device("cpu")), "auto", models=teachers)
    return trainers


def seconds_per_step(trainers: dict[str, Trainer], rounds: int) -> dict[str, float]:
    """Return the median processor seconds of a training step of each model, over `rounds` turns after a first one."""
    turns = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            begin = time.process_time()
            for _ in range(STEPS):
                trainer.train_step()
            turns[name].append((time.process_time() - begin) / STEPS)
    return {name: statistics.median(measured[1:]) for name, measured in turns.items()}


def table(models: dict, taken: dict[str, float]) -> str:
    """Return the table in Markdown: seconds of a step, of the whole training, and of those of its teachers before it."""
    lines = ["| model | steps | seconds per step | seconds | with teachers |", "|---|---|---|---|---|"]
    whole = {name: models[name]["training"]["steps"] * step for name, step in taken.items()}
    for name in sorted(whole, key=whole.get):
        sums = sum(whole[part] for part in with_teachers([name], models))
        lines.append(
            f"| `{name}` | {models[name]['training']['steps']:,} | {taken[name]:.3f} | {whole[name]:.0f} | {sums:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network (default: %(default)s)")
    parser.add_argument(
        "--models", nargs="+", help="names of models (default: those of the methods of config/rivals.yaml)"
    )
    arguments = parser.parse_args()
    use_threads(1)
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    merge(config, yaml.safe_load((ROOT / "config" / "rivals.yaml").read_text()))
    resolved = read(config).systems["kolmogorov"]
    models, names = resolved["models"], arguments.models or used_models(resolved)
    system, side = resolved["system"], resolved["emulator"]["resolution"]
    trainers = trainers_of(models, with_teachers(names, models), system, side, frames=200)
    print(table(models, seconds_per_step(trainers, arguments.rounds)))


if __name__ == "__main__":
    main()
