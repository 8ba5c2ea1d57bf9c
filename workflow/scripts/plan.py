"""What a configuration will take, before anything runs: `snakemake plan`.

Snakemake's graph of jobs gives the stages and their arguments. Bytes follow from the shapes of what each job writes;
hours from counted work (work.py: one solver step of one member, each network on tensors without content) divided by the
rates in workflow/rates.yaml. Nothing is written, and no network is trained.
"""

import argparse
import functools
import inspect
import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import configuration  # noqa: E402
import torch  # noqa: E402
from state import Job, expected  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from work import Counter, Work  # noqa: E402

from sns_core.__main__ import read_arguments  # noqa: E402
from sns_core.data.frames import FRAMES_A_CHUNK, steps_per_frame  # noqa: E402
from sns_core.metrics.spectra import shell_wavenumbers  # noqa: E402
from sns_core.plugins import needs_of  # noqa: E402
from sns_core.rollout.diagnose import DRIFTS  # noqa: E402
from sns_core.rollout.segment import CHUNK_STEPS  # noqa: E402
from sns_core.rollout.statistics import SERIES, StreamingStatistics  # noqa: E402
from sns_core.runtime import generator  # noqa: E402
from sns_core.stages import STAGES  # noqa: E402
from sns_core.systems import System, build_system  # noqa: E402
from sns_core.training.models import build_network  # noqa: E402
from sns_core.training.train import CALIBRATION_PAIRS, VALIDATION_BATCHES  # noqa: E402

RATES = yaml.safe_load((ROOT / "workflow" / "rates.yaml").read_text())
# What netCDF4 adds to the numbers themselves: bytes a variable in one piece, a variable in chunks, and a chunk.
IN_ONE, IN_CHUNKS, CHUNK = 1000, 4000, 100
RECORD, NOTE = 2500, 3000  # bytes of the record beside a result, and of the note in a model file
PICTURE = 2050  # bytes of a figure's PNG and PDF for each dot per inch, the mean of the smoke run's and the demo's
GPU_STAGES = (
    "simulate_trajectories", "train_model", "rollout_segment", "rollout_ensemble", "rollout_grids", "measure_cost",
    "diagnose_denoiser",
)  # fmt: skip


@dataclass
class Estimate:
    """Of one job: bytes that stay, bytes of work files that go when it ends, and its work by kind."""

    bytes: float = 0.0
    temporary: float = 0.0
    work: dict[str, Work] = field(default_factory=dict)  # kind (a rate) -> work
    basis: str = ""

    def seconds(self, machine: str) -> float:
        rates, total = RATES[machine], RATES["job"]
        for kind, work in self.work.items():
            moved = work.bytes / rates[kind] if kind in ("memory", "files") else work.flops / rates[kind]
            total += max(moved, work.kernels * rates.get("kernel", 0.0))
        return total


class Plan:
    """The configuration, and what is counted once for each of its systems and models."""

    def __init__(self, config: dict):
        self.config = config
        self.resolved = {name: configuration.resolve(config, name) for name in config["use"]["systems"]}

    @functools.cache  # noqa: B019
    def system(self, name: str) -> System:
        described = self.resolved[name]["system"]
        return build_system(described["name"], described["parameters"], torch.float32, "cpu")

    @functools.cache  # noqa: B019
    def solver(self, name: str) -> tuple[Work, int]:
        """A solver step of one member, and the bytes of its carry, once its multi-step scheme has begun."""
        system = self.system(name)
        carry = system.start(system.initial_state(1, [generator("plan")]))
        for _ in range(3):
            with Counter() as counter:
                carry = system.step(carry)
        return counter.work, sum(t.numel() * t.element_size() for t in carry.values())

    def network(self, name: str, model: str) -> tuple[Work, int, int]:
        """A call for one row of a batch, and the numbers of parameters and of tensors."""
        spec, side = self.resolved[name]["models"][model], self.resolved[name]["emulator"]["resolution"]
        shape = {key: spec.get(key) for key in ("objective", "network", "diffusion")}
        return _network(json.dumps(shape, sort_keys=True), self.system(name).channels, side)

    def of(self, job: Job, read: float) -> Estimate:
        """The estimate of a job that reads `read` bytes."""
        system = next((n for n in self.resolved if f"/{n}/" in f"/{job.outputs[0]}"), None)
        if job.stage in ESTIMATES:
            module = __import__(STAGES[job.stage], fromlist=[job.stage])
            function = getattr(module, job.stage)
            own = inspect.signature(function).parameters
            words = [w for n, values in job.words.items() if n in own for w in (f"--{n}", *values)]
            estimate = ESTIMATES[job.stage](self, system, read_arguments(function, words))
        elif job.stage.startswith("plot_"):
            estimate = Estimate(PICTURE * self.config["figures"]["dpi"], basis="a picture's size at this resolution")
        else:
            estimate = Estimate(basis="not estimated")
        if job.stage not in (*GPU_STAGES, "record_provenance"):  # which takes checksums from the records
            estimate.work["files"] = Work(bytes=read)
        estimate.bytes += RECORD * sum(path.suffix != ".json" or job.stage != "train_model" for path in job.outputs)
        return estimate


@functools.cache
def _network(shape: str, channels: int, side: int) -> tuple[Work, int, int]:
    with FakeTensorMode(), torch.no_grad():
        spec = json.loads(shape)
        network = build_network(spec, channels, torch.zeros(int(spec["network"]["landmarks"]), side, side))
        given = [torch.randn(1, network.frames_in, channels, side, side)]
        if network.told:
            given.append(torch.zeros(1, network.frames_out, dtype=torch.int64))
        with Counter() as counter:
            network(*given)
        tensors = network.state_dict().values()
        return counter.work, sum(t.numel() for t in tensors), len(tensors)


def in_one(*shapes: tuple[int, ...], size: int = 4) -> float:
    return sum(math.prod(shape) * size + IN_ONE for shape in shapes)


def in_chunks(shape: tuple[int, ...], chunk: tuple[int, ...], size: int = 4) -> float:
    """A variable in chunks, each stored whole and with a checksum."""
    count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    return count * (math.prod(chunk) * size + 4 + CHUNK) + IN_CHUNKS


def frame_file(system: System, members: int, frames: int, side: int) -> float:
    """What every file of frames holds (FrameWriter)."""
    shape = (members, frames, system.channels, side, side)
    coordinates = in_one((members,), (2 * side,), (2 * side,), (8 * system.channels,))
    return in_chunks(shape, (1, FRAMES_A_CHUNK, *shape[2:])) + in_chunks((frames,), (512,), 8) + coordinates


def simulate(plan: Plan, name: str, a: dict) -> Estimate:
    system, side, members = plan.system(name), a["emulator"]["resolution"], a["members"]
    stride = steps_per_frame(a["emulator"]["step"], system.dt)
    clock = round(a["spin_up"] / system.dt) // stride + a["frames"]
    n, channels = system.resolution, system.channels
    written = frame_file(system, members, a["frames"], side) + in_chunks((clock,), (clock,), 8)
    written += in_chunks((members, clock, channels), (1, clock, channels))
    written += in_chunks((members, channels, n, n), (1, channels, n, n))
    step, carry = plan.solver(name)
    frames = members * channels * (a["frames"] * side**2 + clock) * 4
    work = step.times(members, clock * stride)
    temporary = frames + 3 * carry * members  # the last carries, before the oldest of them goes
    return Estimate(written, temporary, {"memory": work}, "shapes; bytes moved by one solver step, counted")


def shard(plan: Plan, name: str, a: dict) -> Estimate:
    splits, side = plan.resolved[name]["data"]["splits"].values(), plan.resolved[name]["emulator"]["resolution"]
    numbers = sum(s["members"] * s["frames"] for s in splits) * plan.system(name).channels * side**2
    files = sum(-(-s["members"] // a["shard_members"]) for s in splits)
    return Estimate(4 * numbers + 128 * files + 1500 + 120 * files, basis="shapes; bytes read")


def train(plan: Plan, name: str, a: dict) -> Estimate:
    forwards, parameters, tensors = plan.network(name, a["name"])
    spec = a["spec"]
    training = spec["training"]
    heads = 0 if spec["objective"] in ("pointwise", "acdm") else 1 if spec["objective"] == "unconditional" else 2
    rows, validations = training["batch"] * training["unroll"], training["steps"] // training["log_every"]
    weights = 4 * parameters + 100 * tensors
    written = weights + 2 * (NOTE + 2300 * heads) + 100 * validations
    learning = forwards.times(3 * rows, training["steps"])  # gradients take twice what the call takes
    learning.kernels *= 4  # and with the optimiser three times as many kernels
    judging = forwards.times(rows, VALIDATION_BATCHES * validations) + forwards.times(CALIBRATION_PAIRS, heads > 0)
    work = {"training": learning, "inference": judging}
    return Estimate(written, 4 * weights, work, "parameters; operations of the network, counted")


def calls(method: dict, levels: int) -> float:
    """Passes through the denoiser in a step; a pair that is looked at and then noised needs one more."""
    stride = method.get("stride", 1) / method.get("sampler", {}).get("order", 1)
    if method["stepper"] in ("refinement", "thermalizer"):
        walked = method["max_level"] if method.get("max_level") else RATES["walk"] * levels
        return math.ceil(walked / stride) + method.get("renoise", True)
    if method["stepper"] == "generation":
        estimated = method.get("condition_level") is None
        return levels / stride + (1 + RATES["walk"] * levels / stride) * estimated
    return levels / stride if method["stepper"] == "acdm" else 1.0


def statistics_sizes(plan: Plan, name: str, block: int, lags: int) -> dict[str, int]:
    """Lengths of the dimensions of a rollout's statistics that do not grow."""
    system, side = plan.system(name), plan.resolved[name]["emulator"]["resolution"]
    return StreamingStatistics(system, torch.ones(system.channels, 1, 1), {}, 1.0, block, lags).sizes(side) | {
        "y": side
    }


def ensemble(plan: Plan, name: str, a: dict) -> Estimate:
    system, resolved = plan.system(name), plan.resolved[name]
    side, method = resolved["emulator"]["resolution"], resolved["methods"][a["name"]]
    members, steps = a["starts"] * a["members"], max(a["leads"])
    frame, solver = (system.channels, side, side), method["stepper"] == "solver"
    written = in_one((members, len(a["leads"]), *frame)) + solver * in_one((a["starts"], len(a["leads"]), *frame))
    if solver:
        strides = steps * steps_per_frame(resolved["emulator"]["step"], system.dt)
        return Estimate(
            written, 0.0, {"memory": plan.solver(name)[0].times(members, strides)}, "shapes; bytes moved, counted"
        )
    return Estimate(written, 0.0, {"inference": stepping(plan, name, method, members, steps)},
                    "shapes; operations of the networks x calls a step")  # fmt: skip


def stepping(plan: Plan, name: str, method: dict, members: int, steps: int) -> Work:
    """What the networks of a method do along a rollout."""
    work, resolved = Work(), plan.resolved[name]
    for role in needs_of(method["stepper"]):
        model = method["models"][role]
        levels = resolved["models"][model].get("diffusion", {}).get("levels", 0)
        times = 1.0 if role == "surrogate" else calls(method, levels)
        work += plan.network(name, model)[0].times(members, steps * times)
    return work


def rollout(plan: Plan, name: str, a: dict) -> Estimate:
    system, resolved = plan.system(name), plan.resolved[name]
    side, members, steps = resolved["emulator"]["resolution"], len(a["members"]), a["steps"]
    channels, method = system.channels, resolved["methods"][a["name"]]
    frames = steps // a["frame_stride"] + (a["first_step"] == 0)
    sizes = statistics_sizes(plan, name, a["block"], a["lags"])
    held = {"step": CHUNK_STEPS, "block": max(1, CHUNK_STEPS // a["block"]), "layer": channels, **sizes}
    there = {**held, "step": steps, "block": steps // a["block"]}
    written = frame_file(system, members, frames, side)
    for dimensions in SERIES.values():
        written += in_chunks((members, *(there[d] for d in dimensions)), (1, *(held[d] for d in dimensions)))
    written += sum(in_chunks((there[d],), (CHUNK_STEPS,), 8) for d in ("step", "block"))
    written += sum(in_chunks((sizes[d],), (sizes[d],), 8) for d in ("wavenumber", "lag", "bin"))
    written += in_chunks((channels,), (1,), 8) + in_chunks((members,), (1,), 8)

    step, carry = plan.solver(name)
    solver = method["stepper"] == "solver"
    frame = 4 * channels * side**2
    written += members * (a["lags"] * frame + (carry if solver else 2 * frame)) + 500  # the restart file
    if solver:
        stride = steps_per_frame(resolved["emulator"]["step"], system.dt)
        return Estimate(written, 0.0, {"memory": step.times(members, steps * stride)}, "shapes; bytes moved, counted")
    work = stepping(plan, name, method, members, steps)
    return Estimate(written, 0.0, {"inference": work}, "shapes; operations of the networks x calls a step")


def diagnose(plan: Plan, name: str, a: dict) -> Estimate:
    resolved, system = plan.resolved[name], plan.system(name)
    side, members, pairs, grid = (
        resolved["emulator"]["resolution"],
        resolved["rollout"]["members"],
        a["pairs"],
        a["grid"],
    )
    stride, test = resolved["rollout"]["frame_stride"], resolved["data"]["splits"]["test"]
    stored, true = resolved["rollout"]["steps"] // stride + 1, -(-test["frames"] // stride)
    picture = (system.channels, side, side)
    written = in_one((grid, pairs), (5, *picture), (5, *picture), picture)
    written += 10 * IN_ONE  # dimensions without values
    written += in_one((grid, pairs, 2), (pairs, 2), (pairs, 2), (stored, members, 2), (stored,), (grid,), (5,), size=8)
    written += in_one((true, members, 2), (2, len(shell_wavenumbers(side))), (members,), (members,), size=8)
    written += in_one((len(DRIFTS), 2), (2,), (len(DRIFTS),), (len(DRIFTS),), (2, 8), (2, 9), size=8)
    denoiser, surrogate = (
        plan.network(name, resolved["methods"][a["name"]]["models"][role])[0] for role in ("denoiser", "surrogate")
    )
    work = denoiser.times(pairs, 2 * grid + 2 * len(DRIFTS) + 7) + surrogate.times(pairs, 3)
    work += (denoiser + surrogate).times(members, stored + true)
    return Estimate(written, 0.0, {"inference": work}, "shapes; operations of the networks, counted")


def reference(plan: Plan, name: str, a: dict) -> Estimate:
    resolved, channels = plan.resolved[name], plan.system(name).channels
    side, members = resolved["emulator"]["resolution"], resolved["data"]["splits"]["test"]["members"]
    shells, distances = len(shell_wavenumbers(side)), (a["map_lags"] + 1) * (side // 2 + 1)
    written = in_one(
        (members, channels * shells), (members, a["lags"] + 1), (members, channels * side), (members, distances)
    )
    written += in_one(*[(members, channels * 64)] * 3, (members, channels * side), size=8) + 11 * IN_ONE
    return Estimate(written, basis="shapes; bytes read")


def scores(plan: Plan, name: str, a: dict) -> Estimate:
    resolved, channels = plan.resolved[name], plan.system(name).channels
    method = resolved["methods"][Path(a["output"]).stem]
    rolled, side = resolved["rollout"], resolved["emulator"]["resolution"]
    members, steps = rolled["members"], method.get("steps", rolled["steps"])
    stored, blocks = steps // rolled["frame_stride"] + 1, steps // rolled["block_steps"]
    sizes = statistics_sizes(plan, name, rolled["block_steps"], rolled["lags"])
    there = {"step": steps, "block": blocks, "layer": channels, **sizes}
    written = sum(4 * members * math.prod(there[d] for d in dims) + IN_CHUNKS for dims in SERIES.values())
    written += in_one((members, stored), (side // 2 + 1, 2 * (a["map_lags"] + 1)), (steps,), (blocks,), size=8)
    written += in_one((members, stored, channels * side)) + 6 * IN_CHUNKS + 4 * IN_ONE
    windows = -(-steps // a["window"]) * channels
    return Estimate(written + 300 * windows, basis="shapes; bytes read")


def aggregate(plan: Plan, name: str, a: dict) -> Estimate:
    resolved = plan.resolved[name]
    members = resolved["rollout"]["members"] * len(resolved["methods"])
    windows = sum(
        -(-m.get("steps", resolved["rollout"]["steps"]) // resolved["metrics"]["window"])
        for m in resolved["methods"].values()
    )
    return Estimate(400 * members + 300 * windows * plan.system(name).channels, basis="rows of the tables")


def page(plan: Plan, name: str, a: dict) -> Estimate:
    """Its pictures in base64."""
    figures = sum(len(files["figures"]) for files in a["systems"].values())
    return Estimate(4 / 3 * 0.64 * PICTURE * plan.config["figures"]["dpi"] * figures, basis="its pictures")


def provenance(plan: Plan, name: str | None, a: dict) -> Estimate:
    """The configuration, once in the file and once in its record."""
    return Estimate(1.5 * len(json.dumps(a["configuration"], indent=1)) + NOTE, basis="the configuration's length")


def take(plan: Plan, name: str, a: dict) -> Estimate:
    return Estimate(json.loads(a["listing"].read_text())["files"][a["name"]]["bytes"], basis="what given.json lists")


ESTIMATES = {
    "take_result": take,
    "simulate_trajectories": simulate,
    "shard_dataset": shard,
    "train_model": train,
    "rollout_segment": rollout,
    "rollout_ensemble": ensemble,
    "diagnose_denoiser": diagnose,
    "compute_reference": reference,
    "compute_metrics": scores,
    "aggregate_metrics": aggregate,
    "write_report": page,
    "record_provenance": provenance,
}


def estimated(config: dict, jobs: list[Job]) -> list[tuple[Job, Estimate]]:
    """Each job with its estimate, those that others read from first."""
    plan, made_by, done = Plan(config), {path: job for job in jobs for path in job.outputs}, {}

    def visit(job: Job) -> Estimate:
        if id(job) not in done:
            upstream = {id(made_by[path]): made_by[path] for path in job.inputs if path in made_by}.values()
            done[id(job)] = plan.of(job, sum(visit(other).bytes for other in upstream))
        return done[id(job)]

    return [(job, visit(job)) for job in jobs]


def told(amount: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def span(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def table(found: list[tuple[Job, Estimate]]) -> str:
    """A row a stage, in the order of STAGES with all figures as one, and the total."""
    rows = defaultdict(list)
    for job, estimate in found:
        rows["plot_..." if job.stage.startswith("plot_") else job.stage].append(estimate)
    head = ("stage", "jobs", "written", "one core", "longest", "one GPU", "longest", "from")
    lines, sums = [head], defaultdict(float)
    for stage in sorted(rows, key=lambda stage: [*STAGES, "plot_..."].index(stage)):
        estimates, gpu = rows[stage], stage in GPU_STAGES
        core, card = [e.seconds("core") for e in estimates], [e.seconds("gpu") for e in estimates if gpu]
        sums["bytes"] += sum(e.bytes for e in estimates)
        sums["core"], sums["gpu"] = sums["core"] + sum(core), sums["gpu"] + sum(card)
        sums["beside"] += 0 if gpu else sum(core)
        lines.append((
            stage, str(len(estimates)), told(sum(e.bytes for e in estimates)), span(sum(core)), span(max(core)),
            span(sum(card)) if gpu else "", span(max(card)) if gpu else "", estimates[0].basis,
        ))  # fmt: skip
    lines.append(("total", str(len(found)), told(sums["bytes"]), span(sums["core"]), "", span(sums["gpu"]), "", ""))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            c.ljust(w) if i in (0, len(head) - 1) else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rates = RATES["gpu"]
    return "\n".join([
        *text, "",
        f"Work files, gone when their job ends: at most {told(max(e.temporary for _, e in found))} a job.",
        "One core: without a GPU, at rates measured on an AMD EPYC (workflow/rates.yaml); jobs share the cores they are given.",
        f"One GPU: an assumption of {rates['training']:.0e} operations and {rates['memory']:.0e} bytes a second, "
        f"{1e6 * rates['kernel']:.0f} µs a kernel; with a GPU, the other stages take {span(sums['beside'])} of a core beside it.",
        f"Refinements without max_level are taken to walk {RATES['walk']:g} of their levels a step, as the demo's do.",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--snakefile", type=Path, required=True)
    parser.add_argument("--configuration", type=Path, required=True, help="the whole configuration, as JSON in a file")
    parser.add_argument("--targets", nargs="+", default=["all"])
    given = parser.parse_args()
    jobs = expected(given.snakefile, given.configuration, given.targets)
    print(table(estimated(json.loads(given.configuration.read_text()), jobs)))


if __name__ == "__main__":
    main()
