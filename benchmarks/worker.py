"""Worker of this project's side, and of the straightforward implementations: `python worker.py <what> [results folder]`."""

import json
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import straightforward
import torch
import yaml
from serve import serve

from sns_core.data.frames import open_frames
from sns_core.data.pairs import Dataset
from sns_core.device import use_threads
from sns_core.diffusion import LevelReadout
from sns_core.processes import ProcessGroup
from sns_core.rollout import build_stepper
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams, generator
from sns_core.systems import build_system
from sns_core.training import load_model
from sns_core.training.trainer import Trainer
from sns_workflow import configuration

ROOT = Path(__file__).parents[1]

CPU = torch.device("cpu")
# Steps of a rollout's unit, always from its start: the first steps ask for more network calls than later ones.
ROUND = 10


def demo() -> dict:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    return configuration.resolve(config, "kolmogorov")


def solver(case: dict):
    """A unit is a step of all members."""
    use_threads(1)
    options = {name: case[name] for name in ("resolution", "dt", "advection", "arithmetic") if name in case}
    system = build_system(case["system"], options, getattr(torch, case["dtype"]))
    carry = system.start(system.initial_state(case["batch"], generator("benchmark")))
    return lambda count: system.run(carry, count)


def solvers(case: dict):
    """`solver` by `processes` processes, each with a share of the members and a core of its own, as jobs of
    `data.group_members` are."""
    cores = sorted(os.sched_getaffinity(0))[: min(case["processes"], case["batch"])]
    while len(TEAM) < len(cores):
        ours, its = multiprocessing.Pipe()
        multiprocessing.Process(target=obey, args=(its, cores[len(TEAM)]), daemon=True).start()
        TEAM.append(ours)
    at_work = TEAM[: len(cores)]
    for pipe in at_work:
        pipe.send({**case, "batch": case["batch"] // len(cores)})
        pipe.recv()

    def work(count):
        for pipe in at_work:
            pipe.send(count)
        for pipe in at_work:
            pipe.recv()

    return work


TEAM = []


def obey(pipe, core: int) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    while True:
        told = pipe.recv()
        if isinstance(told, dict):
            work = solver(told)
        else:
            work(told)
        pipe.send("done")


def transforms(case: dict):
    """The floor: as many transforms of one axis as a step takes, contiguous, from one cached array to another; a unit is a step."""
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
    """Frames of white noise, as many as the demo's: what training costs does not depend on them."""
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
    """A unit is ROUND steps of all members from the same states, with the models of a finished run. The pair is looked at in
    every step, unless the case says `configured`."""
    folder, resolved = Path(sys.argv[2]), demo()
    manifest = json.loads((folder / "shards" / "manifest.json").read_text())
    system = build_system(manifest["system"]["name"], manifest["system"]["parameters"], torch.float32)
    method = resolved["methods"][case["method"]]
    if "every" in method and not case.get("configured"):
        method = {**method, "every": 1}
    models = {role: folder / "models" / f"{name}.safetensors" for role, name in method["models"].items()}
    initial = open_frames(next((folder / "data").glob("*test*.nc")), "final_state")["final_state"]
    states = torch.from_numpy(initial.values[: case["members"]])
    options = {"precision": case.get("precision", "auto"), "compile": case.get("compile", False)}
    stepper = build_stepper(method, models, system, manifest, CPU, **options)
    start, streams = stepper.start(states), MemberStreams(0, "benchmark", members=range(case["members"]))

    def ours(count):
        for _ in range(count):
            carry = start
            for index in range(ROUND):
                carry, _ = stepper.step(carry, streams.at(index + 1))

    if case["side"] == "ours":
        use_threads(1)
        return ours
    surrogate, denoiser = (
        load_model(models[role], kind) for role, kind in (("surrogate", "pointwise"), ("denoiser", "denoiser"))
    )
    usual = torch.tensor(denoiser.note["clean_probability"]).expand(2, -1)
    plain = straightforward.Rollout(
        surrogate.network, denoiser.network, surrogate.per_channel("increment_std"), denoiser.colour(), denoiser.schedule(),
        LevelReadout(**method["readout"], clean_probability=usual), method["max_level"], method["sampler"]["clip"],
        method["renoise"], method["joint"], stepper.gain, case.get("stride", method["stride"]),
    )  # fmt: skip
    if case["precision"] == "float32" and not method["renoise"] and "stride" not in case:  # no random numbers
        own, other = stepper.step(start, streams.at(1))[0]["frame"], plain.step(start["frame"], start["anchor"])
        # Not closer: ours denoises the pair as it was looked at, the other the pair scaled to the level where it is taken to stand.
        torch.testing.assert_close(own, other, rtol=0, atol=3e-3)

    def theirs(count):
        for _ in range(count):
            frame, plain.kept = start["frame"], []
            for _ in range(ROUND):
                frame = plain.step(frame, start["anchor"])

    return theirs


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        {"solver": solver, "solvers": solvers, "transforms": transforms, "training": training, "rollout": rollout}[
            sys.argv[1]
        ]
    )
