"""Worker for this project's side and for the straightforward code: `python worker.py CASE [results folder]`."""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import straightforward
import torch
import yaml
from serve import serve

from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_frames
from sns_core.data.pairs import Dataset
from sns_core.device import use_threads
from sns_core.methods.base import Hardware
from sns_core.methods.build import build_method
from sns_core.methods.refinement import Refinement
from sns_core.processes import ProcessGroup
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams, generator
from sns_core.systems import build_system
from sns_core.training import load_model
from sns_core.training.models import TrainedModel
from sns_core.training.trainer import Trainer
from sns_workflow import configuration

ROOT = Path(__file__).parents[1]

CPU = torch.device("cpu")
# Steps in one unit of a rollout. Each unit begins at the initial states, because the first steps take more network calls.
ROUND = 10


def demo() -> dict:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["use"]["methods"].append("sns_in_place")
    return configuration.resolve(config, "kolmogorov")


def solver(case: dict):
    """A unit is a step of all members."""
    use_threads(1)
    options = {name: case[name] for name in ("resolution", "dt", "advection", "arithmetic") if name in case}
    system = build_system(case["system"], options, getattr(torch, case["dtype"]))
    carry = system.start(system.initial_state(case["batch"], generator("benchmark")))
    return lambda count: system.run(carry, count)


def solvers(case: dict):
    """As `solver`, by `processes` processes: each has a share of the members and one core, as jobs of `data.group_members` do."""
    cores = sorted(os.sched_getaffinity(0))[: min(case["processes"], case["batch"])]
    while len(PIPES) < len(cores):
        parent, child = multiprocessing.Pipe()
        multiprocessing.Process(target=work_on_core, args=(child, cores[len(PIPES)]), daemon=True).start()
        PIPES.append(parent)
    pipes = PIPES[: len(cores)]
    for pipe in pipes:
        pipe.send({**case, "batch": case["batch"] // len(cores)})
        pipe.recv()

    def work(count):
        for pipe in pipes:
            pipe.send(count)
        for pipe in pipes:
            pipe.recv()

    return work


PIPES = []  # pipes to the processes of `solvers`, which serve one case after another


def work_on_core(pipe, core: int) -> None:
    """Serve a pipe on one core: a dict prepares a case, a number asks for so many units of it."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    while True:
        message = pipe.recv()
        if isinstance(message, dict):
            work = solver(message)
        else:
            work(message)
        pipe.send("done")


def transforms(case: dict):
    """The floor: as many transforms along one axis as a step takes, between contiguous, cached arrays. A unit is a step."""
    n, columns = case["resolution"], case["columns"]
    real = torch.randn(case["batch"], n, n, dtype=getattr(torch, case["dtype"]))
    spectra = torch.fft.rfft(real)
    narrow = spectra.transpose(-1, -2)[:, :columns].contiguous()

    def work(count):
        for _ in range(count * case["stages"]):
            for _ in range(case["inverse"]):
                torch.fft.ifft(narrow)
                torch.fft.irfft(spectra, n=n)
            for _ in range(case["forward"]):
                torch.fft.rfft(real)
                torch.fft.fft(narrow)

    return work


def dataset() -> Dataset:
    """Frames of white noise, as many as in the demo. The cost of training does not depend on their values."""
    resolved = demo()
    system, resolution = resolved["system"], resolved["emulator"]["resolution"]
    frames = np.random.default_rng(0).standard_normal((64, 400, 1, resolution, resolution), dtype=np.float32)
    amplitude = [[1.0 / (1 + k) for k in range(int(shell_index(resolution).max()) + 1)]]
    statistics = {"std": [1.0], "increment_std": [1.0], "shell_amplitude": amplitude}
    described = {"name": system["name"], "parameters": system["parameters"]}
    return Dataset([frames], {"statistics": statistics, "system": described, "identity": "benchmark"})


def training(case: dict):
    """A unit is a step."""
    spec, data = demo()["models"][case["model"]], dataset()
    trainer = Trainer(
        case["model"], spec, data, 0, ProcessGroup(CPU), case.get("precision", "auto"), case.get("compile", False)
    )
    if case["side"] == "ours":
        use_threads(1)
        return lambda count: [trainer.train_step() for _ in range(count)]
    objective, diffusion = trainer.objective, spec["diffusion"]
    return lambda count: straightforward.train(
        trainer.network, torch.from_numpy(data.shards[0]), diffusion["anchor_gap"], objective.colour, objective.schedule,
        spec["training"]["batch"], objective.level_weight, case["passes"], count,
    )  # fmt: skip


def rollout(case: dict):
    """A unit is ROUND steps of all members from the same states, with the models of a finished run.

    The pair is examined in every step, unless the case says `configured`.
    """
    folder, resolved = Path(sys.argv[2]), demo()
    emulation = Emulation.read(folder / "shards" / "manifest.json")
    options = resolved["methods"][case["method"]]
    if not case.get("configured"):
        options = {**options, "refine_every": 1}
    models = {role: folder / "models" / f"{name}.safetensors" for role, name in options["models"].items()}
    states = open_frames(next((folder / "data").glob("*test*.nc")), "final_state")["final_state"]
    states = torch.from_numpy(states.values[: case["members"]])
    hardware = Hardware(CPU, case.get("precision", "auto"), case.get("compile", False))
    method = build_method(options, models, emulation, hardware=hardware)
    start, streams = method.start(states), MemberStreams(0, "benchmark", members=range(case["members"]))

    def run(count):
        for _ in range(count):
            carry = start
            for index in range(ROUND):
                carry, _ = method.step(carry, streams.at(index + 1))

    if case["side"] == "ours":
        use_threads(1)
        return run
    surrogate, denoiser = (
        load_model(models[role], kind) for role, kind in (("surrogate", "pointwise"), ("denoiser", "denoiser"))
    )
    plain = plain_rollout(method, surrogate, denoiser, case.get("stride"))
    if (
        case["precision"] == "float32" and not method.renoise and "stride" not in case
    ):  # the step draws no random numbers
        frame = method.step(start, streams.at(1))[0]["frame"]
        # The two differ: the package denoises the pair as encoded, the straightforward code the pair scaled to its level.
        torch.testing.assert_close(frame, plain.step(start["frame"], start["frame"]), rtol=0, atol=3e-3)

    def run_plain(count):
        for _ in range(count):
            frame, plain.history = start["frame"], []
            for _ in range(ROUND):
                frame = plain.step(frame, start["frame"])  # the anchor is the initial frame

    return run_plain


def plain_rollout(
    method: Refinement, surrogate: TrainedModel, denoiser: TrainedModel, stride: int | None = None
) -> straightforward.Rollout:
    """The straightforward code for a refinement and its models; `stride`: levels per move (None: the method's)."""
    return straightforward.Rollout(
        surrogate.network,
        denoiser.network,
        surrogate.per_channel("increment_std"),
        denoiser.diffusion.colour,
        denoiser.diffusion.schedule,
        method.level_rule.readout,
        max_level=method.level_rule.max_level,
        clip=method.walk.sampler.clip,
        renoise=method.renoise,
        shared_level=method.level_rule.shared,
        gain=method.gain and gain_factor(method.gain, denoiser.note["resolution"]),
        stride=stride or method.walk.stride,
    )


def gain_factor(gain: tuple[float, float], resolution: int) -> torch.Tensor:
    """a + b / K for each mode of a half spectrum; K = 0 counts as K = 1."""
    shells = torch.from_numpy(shell_index(resolution)).clamp(min=1)
    return (gain[0] + gain[1] / shells).float()


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        {"solver": solver, "solvers": solvers, "transforms": transforms, "training": training, "rollout": rollout}[
            sys.argv[1]
        ]
    )
