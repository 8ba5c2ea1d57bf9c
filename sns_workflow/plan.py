"""Estimate what a configuration will take, that of a sweep too, before anything runs: `snakemake plan`.

Snakemake's graph of jobs gives the jobs and their arguments. Hours are counted work (operation_count.py: one solver
step of one member, each network on tensors without content) divided by the rates in rates.yaml. Bytes are those of
frames alone, which are nearly all that a run writes. Nothing is written, and no network is trained.
"""

import argparse
import functools
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from sns_core.data.frames import steps_per_frame
from sns_core.diffusion.increments import transport_calls
from sns_core.evaluation.calibration import LENGTHS, MEMBERS
from sns_core.grids import grid_shape
from sns_core.methods.refinement_student import mean_run_up
from sns_core.stages import STAGES
from sns_core.streams import generator
from sns_core.systems import build_system
from sns_core.training.models import build_network
from sns_core.training.trainer import VALIDATION_BATCHES
from sns_workflow import configuration
from sns_workflow.jobs import Job, expected_jobs
from sns_workflow.operation_count import Counter, OperationCount
from sns_workflow.sweep import described_runs

RATES = yaml.safe_load(Path(__file__).with_name("rates.yaml").read_text())


@dataclass
class Estimate:
    """The cost of one job: its work by kind (a rate in rates.yaml), and the bytes of the frames that it writes."""

    work: dict[str, OperationCount]
    frame_bytes: float = 0.0

    def seconds(self, machine: str) -> float:
        """Seconds on a `core` or a `gpu`: work over rate, but never less than its kernels take to start."""
        rates, total = {**RATES["core"], **RATES[machine]}, RATES["job"]
        for kind, work in self.work.items():
            amount = work.bytes if kind in ("memory", "files") else work.flops
            total += max(amount / rates[kind], work.kernels * rates.get("kernel", 0.0))
        return total


class Scale:
    """One system of a run, with the work of one step of its solver and of one call of each network."""

    def __init__(self, resolved: dict):
        self.resolved, described = resolved, resolved["system"]
        self.system = build_system(described["name"], described["parameters"], torch.float32, "cpu")
        self.grid = grid_shape(resolved["emulator"]["resolution"])
        self.frame_bytes = 4 * self.system.channels * math.prod(self.grid)
        self.stride = steps_per_frame(resolved["emulator"]["step"], self.system.dt)

    @functools.cached_property
    def solver_step(self) -> OperationCount:
        """A solver step of one member, once a multi-step scheme has begun."""
        carry = self.system.start(self.system.initial_state(1, [generator("plan")]))
        for _ in range(3):
            with Counter() as counter:
                carry = self.system.step(carry)
        return counter.work

    def network_call(self, model: str) -> OperationCount:
        """A call of a network for one row of a batch."""
        spec = self.resolved["models"][model]
        shape = {key: value for key, value in spec.items() if key != "training"}
        return _network_call(json.dumps(shape, sort_keys=True), self.system.channels, self.grid)

    def steps(self, method: dict, members: int, steps: int) -> dict[str, OperationCount]:
        """Emulator steps of a method."""
        if method["kind"] == "solver":
            return {"memory": self.solver_step.times(members, steps * self.stride)}
        work = OperationCount()
        for role, model in method["models"].items():
            spec = self.resolved["models"][model]
            levels = spec.get("diffusion", {}).get("levels", 0)
            calls = 1.0 if role == "surrogate" else denoiser_calls(method, levels)
            calls += spec.get("refinements", 0) + spec.get("moves", 1) - 1
            work += self.network_call(model).times(members, steps * calls)
        return {"inference": work}


@functools.cache
def _network_call(shape: str, channels: int, grid: tuple[int, int]) -> OperationCount:
    with FakeTensorMode(), torch.no_grad():
        spec = json.loads(shape)
        landmarks = torch.zeros(int(spec["network"]["landmarks"]), *grid)
        network = build_network(spec, channels, landmarks, grid)
        frames = torch.randn(1, network.frames_in, channels, *grid)
        levels = torch.zeros(1, network.frames_out, dtype=torch.int64) if network.level_conditioned else None
        condition = torch.zeros(1, network.condition_features) if network.condition_features else None
        with Counter() as counter:
            network(frames, levels, condition)
        return counter.work


def denoiser_calls(method: dict, levels: int) -> float:
    """Calls of the denoiser in a step of a method, on average over its steps.

    A pair whose level is estimated before it is noised needs one more; a method that refines every n-th step makes its
    calls then.
    """
    kind, stride = method["kind"], method.get("stride", 1) / method.get("sampler", {}).get("order", 1)
    if kind in ("refinement", "thermalizer"):
        walked = method["max_level"] if method.get("max_level") else RATES["walk"] * levels
        return (math.ceil(walked / stride) + method.get("renoise", True)) / method.get("refine_every", 1)
    if kind == "generation":
        estimated = method.get("condition_level") is None
        return levels / stride + (1 + RATES["walk"] * levels / stride) * estimated
    if kind == "rolling_window":
        return method["moves"]
    if kind == "flow_matching":
        return transport_calls(method["moves"], method["order"])
    return {"acdm": levels / stride, "residual_noise": 0.0}.get(kind, 1.0)


def calls_without_gradients(spec: dict) -> float:
    """Return the network calls without gradients in a training step: a teacher's, and a student's run-up."""
    if spec["objective"] == "distilled_refinement":
        return 2 + mean_run_up(spec["run_up"])  # surrogate and denoiser
    # The moves of a teacher of flow matching are Heun's, of two calls each.
    return spec.get("teacher_moves", 0) * (2 if spec["objective"] == "distilled_flow_matching" else 1)


def estimate(job: Job, scale: Scale | None) -> Estimate:
    """The estimate of a job without what it reads; a stage that is not named here takes no more than its start."""
    arguments, resolved = job.arguments, scale.resolved if scale else {}
    match job.stage:
        case "simulate_trajectories":
            members, frames = arguments["members"], arguments["frames"]
            steps = round(arguments["spin_up"] / scale.system.dt) + frames * scale.stride
            return Estimate({"memory": scale.solver_step.times(members, steps)}, members * frames * scale.frame_bytes)
        case "shard_dataset":
            frames = sum(split["members"] * split["frames"] for split in resolved["data"]["splits"].values())
            return Estimate({}, frames * scale.frame_bytes)
        case "train_model":
            forwards, training = scale.network_call(arguments["name"]), arguments["spec"]["training"]
            rows, steps = training["batch"] * training["unroll"], training["steps"]
            learning = forwards.times(3 * rows, steps)  # gradients take twice what the call takes
            learning.kernels *= 4  # and three times as many kernels, the optimiser's among them
            learning += forwards.times(rows, calls_without_gradients(arguments["spec"]) * steps)
            validation = forwards.times(rows, VALIDATION_BATCHES * steps // training["log_every"])
            return Estimate({"training": learning, "inference": validation})
        case "calibrate_refinement":
            method, split = resolved["methods"][arguments["name"]], resolved["data"]["splits"]["validation"]
            return Estimate(scale.steps(method, MEMBERS * split["members"], LENGTHS * split["frames"]))
        case "rollout_segment":
            members, steps = len(arguments["members"]), arguments["steps"]
            frames = members * (steps // arguments["frame_stride"] + (arguments["first_step"] == 0))
            work = scale.steps(resolved["methods"][arguments["name"]], members, steps)
            return Estimate(work, frames * scale.frame_bytes)
        case "rollout_reference":
            # Of a source, the trajectories in the solver's place, which cost nothing.
            method = resolved["methods"]["solver"]
            return Estimate(scale.steps(method, len(arguments["members"]), arguments["steps"]))
        case "rollout_ensemble":
            members, leads = arguments["starts"] * arguments["members"], arguments["leads"]
            work = scale.steps(resolved["methods"][arguments["name"]], members, max(leads))
            return Estimate(work, members * len(leads) * scale.frame_bytes)
    return Estimate({})


def estimate_all(config: dict, jobs: list[Job]) -> list[tuple[Job, Estimate]]:
    """Each job with its estimate. Metrics and figures also take the time to read the frames of other jobs."""
    scales = {
        Path(run["results"], run["run"], name): Scale(configuration.resolve(run, name))
        for run in described_runs(config)
        for name in run["use"]["systems"]
    }
    estimates = [estimate(job, _scale_of(job.outputs[0], scales)) for job in jobs]
    frames = {path: e.frame_bytes for job, e in zip(jobs, estimates, strict=True) for path in job.outputs}
    for job, taken in zip(jobs, estimates, strict=True):
        if not taken.work:
            taken.work["files"] = OperationCount(bytes=sum(frames.get(path, 0.0) for path in job.inputs))
    return list(zip(jobs, estimates, strict=True))


def _scale_of(path: Path, scales: dict[Path, Scale]) -> Scale | None:
    """Return the system, by its folder, to which a file belongs; None for a file elsewhere."""
    return next((scales[folder] for folder in path.parents if folder in scales), None)


def in_bytes(amount: float) -> str:
    """Bytes as a person reads them; empty for none."""
    if not amount:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def rough_duration(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def table(estimates: list[tuple[Job, Estimate]]) -> str:
    """One row per stage, in the order of STAGES with all figures as one, and the total."""
    rows = defaultdict(list)
    for job, taken in estimates:
        rows["plot_..." if job.stage.startswith("plot_") else job.stage].append(taken)
    stages = sorted(rows, key=[*STAGES, "plot_..."].index)
    lines = [("stage", "jobs", "frames", "one core", "one GPU", "longest job, core", "GPU")]
    for name, taken in [*((stage, rows[stage]) for stage in stages), ("total", [t for _, t in estimates])]:
        seconds = {machine: [e.seconds(machine) for e in taken] for machine in ("core", "gpu")}
        sums, longest = ([rough_duration(reduce(seconds[m])) for m in seconds] for reduce in (sum, max))
        lines.append((name, str(len(taken)), in_bytes(sum(e.frame_bytes for e in taken)), *sums, *longest))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    rates = RATES["gpu"]
    return "\n".join(
        [
            *aligned,
            "",
            "One core: at rates measured on an AMD EPYC (sns_workflow/rates.yaml); jobs share the cores of a call.",
            f"One GPU: an assumption of {rates['training']:.0e} operations and {rates['memory']:.0e} bytes a second, and of "
            f"{1e6 * rates['kernel']:.0f} µs to start a kernel.",
            f"Refinements without max_level are assumed to walk {RATES['walk']:g} of their levels in a step, as in the demo.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--configuration", type=Path, required=True, help="the whole configuration, as JSON in a file")
    arguments = parser.parse_args()
    config = json.loads(arguments.configuration.read_text())
    print(table(estimate_all(config, expected_jobs(arguments.snakefile, config))))


if __name__ == "__main__":
    main()
