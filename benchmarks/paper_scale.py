"""The cost of a scale on this machine: seconds and memory per step, and the hours of the whole run.

    python benchmarks/paper_scale.py [--configfile config/workstation.yaml] [system ...]
    python benchmarks/paper_scale.py --stages FOLDER [--seconds 280] [--configfile ...] [system ...]

Writes benchmarks/results/<run>_scale_<date>_<machine>.md (or <run>_stages_...); without --configfile, for config/paper.yaml.
Solver, networks and batch have their full size, for a few steps only; the rest is multiplication. With --stages every job of
the workflow runs. Grids, networks, levels and batches then have their full size, and only counts (steps, members, frames,
pairs, calls) are cut to a few (--batch also cuts the samples of a batch). A later call in FOLDER does not repeat finished jobs.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import math
import multiprocessing
import os
import platform
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from sns_core.__main__ import main as sns_main
from sns_core.data.frames import steps_per_frame
from sns_core.device import autocast, bfloat16_is_fast, select_device
from sns_core.stages import STAGES
from sns_core.streams import generator
from sns_core.systems import build_system
from sns_core.training.models import build_network
from sns_workflow import configuration
from sns_workflow.jobs import expected_jobs
from sns_workflow.operation_count import Counter

ROOT = Path(__file__).parents[1]


def synchronise(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device, work, repeats: int) -> float:
    """Return the median seconds of `repeats` runs after one to warm up. On a CPU they are seconds of its threads, so that
    other jobs on the machine do not count."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    work()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        began = clock()
        work()
        synchronise(device)
        seconds.append(clock() - began)
    return sorted(seconds)[len(seconds) // 2]


def memory(device) -> str:
    """Return the peak memory so far: the GPU's on a GPU, the process's otherwise."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def solver_rows(resolved: dict, device) -> Iterator[tuple]:
    system, data, members = resolved["system"], resolved["data"], 4
    flow = build_system(system["name"], system["parameters"], torch.float32, device)
    carry = flow.start(flow.initial_state(members, [generator("benchmark", m) for m in range(members)]))
    steps = 10
    seconds = timed(device, lambda: flow.run(carry, steps), 3) / steps
    stride = steps_per_frame(resolved["emulator"]["step"], flow.dt)
    total = sum(
        split["members"] * (round(data["spin_up"] / flow.dt) + split["frames"] * stride)
        for split in data["splits"].values()
    )
    yield "solver, 4 members", "step", seconds, memory(device), total / members, "data of all splits"


def network_rows(resolved: dict, device, channels: int) -> Iterator[tuple]:
    resolution = resolved["emulator"]["resolution"]
    used = {model for method in resolved["methods"].values() for model in method["models"].values()}
    for name in [model for model in resolved["models"] if model in used]:
        spec = resolved["models"][name]
        training, network = spec["training"], build_network(spec, channels, resolution=resolution).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
        frames = torch.randn(training["batch"], network.frames_in, channels, resolution, resolution, device=device)
        levels = torch.zeros(training["batch"], network.frames_out, dtype=torch.int64, device=device)
        inputs = (frames, levels) if network.level_conditioned else (frames,)

        def step(network=network, inputs=inputs, optimiser=optimiser, unroll=training["unroll"]):
            with autocast(device):
                loss = sum(network(*inputs)[0].float().square().mean() for _ in range(unroll))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        seconds = timed(device, step, 1)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        with Counter() as counter:
            network(*(t[:1] for t in inputs))[0].float().square().mean().backward()
        rate = counter.work.flops * training["batch"] * training["unroll"] / seconds / 1e9
        label = f"training {name}, {parameters:.1f} M parameters, batch {training['batch']}, {rate:.0f} GFLOP/s"
        yield label, "step", seconds, memory(device), training["steps"], "the whole training"
        members, rollout = resolved["rollout"]["members"], resolved["rollout"]["steps"]
        batch = tuple(t[:members] for t in inputs)
        with torch.no_grad(), autocast(device):
            seconds = timed(device, lambda n=network, b=batch: n(*b), 2)
        with torch.no_grad(), Counter() as counter:
            network(*(t[:1] for t in batch))
        rate = counter.work.flops * len(batch[0]) / seconds / 1e9
        label = f"rollout, one call of {name}, {len(batch[0])} members, {rate:.0f} GFLOP/s"
        yield label, "call", seconds, memory(device), rollout, f"{rollout} steps of one call each"


def scale_lines(config: dict, names: list[str], device) -> Iterator[str]:
    unit_of_time = "Seconds" if device.type == "cuda" else "Seconds of processor time, all threads together"
    yield f"{unit_of_time}; networks in {'bfloat16' if bfloat16_is_fast(device) else 'float32'}."
    yield ""
    yield "| system | work | seconds | peak memory so far | times | hours in all |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        resolved = configuration.resolve(config, name)
        channels = build_system(resolved["system"]["name"], resolved["system"]["parameters"]).channels
        rows = itertools.chain(solver_rows(resolved, device), network_rows(resolved, device, channels))
        for work, unit, seconds, peak, count, meaning in rows:
            hours = seconds * count / 3600
            yield f"| {name} | {work} | {seconds:.3g} per {unit} | {peak} | {count:.3g} ({meaning}) | {hours:.3g} |"


def cut(config: dict, names: list[str], batch: int | None) -> dict:
    """Return an overlay with the same sizes, few steps, members and frames, and batches of at most `batch`."""
    training = {"steps": 1, "log_every": 1, "warmup": 1, "checkpoint_every": 1, "trajectories": None, "frames": None}
    models = {}
    for name, spec in config["models"].items():
        whole = spec["training"]["batch"]
        models[name] = {"training": {**training, "batch": min(whole, batch or whole)}}
        if "diffusion" in spec:
            models[name]["diffusion"] = {"anchor_gap": 4}
    methods = {}
    for name, spec in config["methods"].items():
        methods[name] = {"steps": 4, "segment_steps": 4, **({"leads": [1, 2]} if "leads" in spec else {})}
        if "stride" in spec:  # at most ten calls along a side of the plane
            levels = config["models"][spec["models"]["denoiser"]]["diffusion"]["levels"]
            methods[name]["stride"] = max(spec["stride"], levels // 10)
    rollout = {"members": 2, "steps": 4, "segment_steps": 4, "frame_stride": 1, "block_steps": 2, "lags": 3}
    ensemble = {"starts": 2, "members": 2, "leads": [1, 2]}
    metrics = {"window": 2, "map_lags": 2, "ensemble": ensemble, "diagnose": {"pairs": 4, "levels": 5}}
    override = {"models": models, "methods": methods, "rollout": rollout, "metrics": metrics}
    splits = {key: {"members": 2, "frames": 12} for key in ("train", "validation", "test")}
    systems = {}
    for name in names:
        step = config["systems"][name]["emulator"]["step"]
        data = {"spin_up": 2 * step, "shard_members": 1, "group_members": None, "splits": splits}
        systems[name] = {"data": data, "override": override}
    figures = {"fields": {"steps": [0, 2], "member": 0}, "explorer": {"members": 2}}
    return {"run": "stages", "use": {"systems": names}, "systems": systems, "figures": figures}


def in_order(jobs: list) -> Iterator:
    """Yield the jobs, each after the jobs whose outputs it reads."""
    made_by, visited = {path: job for job in jobs for path in job.outputs}, set()

    def visit(job):
        if id(job) not in visited:
            visited.add(id(job))
            for path in job.inputs:
                if path in made_by:
                    yield from visit(made_by[path])
            yield job

    for job in jobs:
        yield from visit(job)


def run_job(folder: str, words: list[str], report: str) -> None:
    """Run a stage by its command line, in a separate process, and write its seconds and memory to `report`."""
    os.chdir(folder)
    began = time.monotonic()
    status = sns_main(words)
    used = resource.getrusage(resource.RUSAGE_SELF)
    took = {
        "wall": time.monotonic() - began,
        "processor": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 2**20,
    }
    if status == 0:
        Path(report).write_text(json.dumps(took))


def measured(folder: Path, jobs: list, seconds: float) -> dict[str, dict]:
    """Return the seconds and memory of each job, by its first output. Jobs of an earlier call are not repeated, and no job
    begins after `seconds`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["__main__", "sns_core.training", "sns_core.rollout", "sns_core.metrics.scorecard", "sns_core.report"]
    )
    by_output, began = {}, time.monotonic()
    (folder / "took").mkdir(exist_ok=True)
    for job in in_order(jobs):
        report = folder / "took" / f"{str(job.outputs[0]).replace('/', '~')}.json"
        if not report.exists() and time.monotonic() - began < seconds:
            common = ["--threads", "1", "--code", job.code, "--log", str(job.log)]
            words = [job.stage, *common, "--from-json", json.dumps(job.arguments)]
            process = context.Process(target=run_job, args=(str(folder), words, str(report)))
            process.start()
            process.join()
            if not report.exists():
                raise SystemExit(f"{job.stage} failed: {folder / (job.log or '')}")
        if report.exists():
            by_output[str(job.outputs[0])] = {"stage": job.stage, **json.loads(report.read_text())}
    return by_output


def stage_lines(config: dict, names: list[str], folder: Path, seconds: float, batch: int | None) -> Iterator[str]:
    """Yield the table of every stage of every system with its slowest job. The jobs run in `folder`, where another call
    continues."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = configuration.merge(json.loads(json.dumps(config)), cut(config, names, batch))
    with contextlib.chdir(folder):
        jobs = expected_jobs(str(ROOT / "Snakefile"), whole, ["all"])
    took = measured(folder.absolute(), jobs, seconds)
    full = "grids, networks, levels" + (", batches" if batch is None else "")
    yield f"Every stage at full size ({full}), with few steps, members, frames and calls{'' if batch is None else f', batches of {batch}'};"
    yield "each job by its command line in one process, one thread. For each stage: the slowest job and the largest peak."
    yield ""
    yield f"{len(took)} of {len(jobs)} jobs."
    yield ""
    yield "| system | stage | jobs | seconds | processor seconds | peak memory, GiB |"
    yield "|---|---|---|---|---|---|"
    rows: dict[tuple, list[dict]] = {}
    for path, entry in took.items():
        system = next((name for name in names if f"/{name}/" in path), "all")
        rows.setdefault((system, entry["stage"]), []).append(entry)
    for (system, stage), entries in sorted(rows.items(), key=lambda row: (row[0][0], list(STAGES).index(row[0][1]))):
        most = [max(entry[key] for entry in entries) for key in ("wall", "processor", "peak")]
        yield f"| {system} | {stage} | {len(entries)} | {most[0]:.1f} | {most[1]:.1f} | {most[2]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--configfile", type=Path, default=ROOT / "config" / "paper.yaml")
    parser.add_argument("--stages", type=Path, metavar="FOLDER", help="run the workflow's jobs there, with few steps")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no further job after this time; the same call continues"
    )
    parser.add_argument("--batch", type=int, help="with --stages: samples of a training step at most")
    parser.add_argument("systems", nargs="*")
    arguments = parser.parse_args()
    device = select_device("auto")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    configuration.merge(config, yaml.safe_load(arguments.configfile.read_text()))
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu.group(1)
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    lines = [f"# {arguments.configfile.name} on {machine}, {threads}, torch {torch.__version__}", ""]
    names = arguments.systems or config["use"]["systems"]
    stages = arguments.stages
    table = scale_lines(config, names, device)
    if stages:
        table = stage_lines(config, names, stages, arguments.seconds, arguments.batch)
    for line in table:
        lines.append(line)
        print(line, flush=True)
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    described = machine if device.type == "cuda" else platform.machine() + " " + machine
    tag = re.sub(r"[^A-Za-z0-9]+", "-", described).strip("-")
    kind = "stages" if arguments.stages else "scale"
    path = folder / f"{config['run']}_{kind}_{datetime.date.today()}_{tag}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path)


if __name__ == "__main__":
    main()
