"""What a scale asks of this machine: seconds and memory a step, and what the whole run would take.

    python benchmarks/paper_scale.py [--configfile config/workstation.yaml] [system ...]
    python benchmarks/paper_scale.py --stages [--configfile ...] [system ...]

Writes benchmarks/results/<run>_scale_<date>_<machine>.md (or <run>_stages_...); without --configfile, of config/paper.yaml.
Solver, networks and batch have their full size, for a few steps only; the rest is multiplication. With --stages the workflow
itself runs, every stage of it, with grids, networks and levels at full size and nothing but counts (steps, members, frames, batch,
pairs) cut to a few.
"""

import argparse
import datetime
import itertools
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow" / "scripts")]
import configuration  # noqa: E402
from work import Counter  # noqa: E402

from sns_core.data.trajectories import steps_per_frame  # noqa: E402
from sns_core.runtime import autocast, bfloat16_is_fast, generator, select_device  # noqa: E402
from sns_core.systems import build_system  # noqa: E402
from sns_core.training.models import build_network  # noqa: E402


def synchronise(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device, work, repeats: int) -> float:
    """Median seconds of `repeats` runs after one to warm up: on a CPU those that its threads computed, so that other jobs
    on the machine do not count."""
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
    """Peak so far, of the GPU where there is one."""
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
        training, network = spec["training"], build_network(spec, channels).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
        frames = torch.randn(training["batch"], network.frames_in, channels, resolution, resolution, device=device)
        levels = torch.zeros(training["batch"], network.frames_out, dtype=torch.int64, device=device)
        told = (levels,) if network.told else ()

        def step(network=network, given=(frames, *told), optimiser=optimiser, unroll=training["unroll"]):
            with autocast(device):
                loss = sum(network(*given)[0].float().square().mean() for _ in range(unroll))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        seconds = timed(device, step, 1)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        with Counter() as counter:
            network(frames[:1], *(t[:1] for t in told))[0].float().square().mean().backward()
        rate = counter.work.flops * training["batch"] * training["unroll"] / seconds / 1e9
        label = f"training {name}, {parameters:.1f} M parameters, batch {training['batch']}, {rate:.0f} GFLOP/s"
        yield label, "step", seconds, memory(device), training["steps"], "the whole training"
        members, rollout = resolved["rollout"]["members"], resolved["rollout"]["steps"]
        few = tuple(t[:members] for t in (frames, *told))
        with torch.no_grad(), autocast(device):
            seconds = timed(device, lambda n=network, f=few: n(*f), 2)
        with torch.no_grad(), Counter() as counter:
            network(*(t[:1] for t in few))
        rate = counter.work.flops * len(few[0]) / seconds / 1e9
        label = f"rollout, one call of {name}, {len(few[0])} members, {rate:.0f} GFLOP/s"
        yield label, "call", seconds, memory(device), rollout, f"{rollout} steps of one call each"


def scale_lines(config: dict, names: list[str], device) -> Iterator[str]:
    what = "Seconds" if device.type == "cuda" else "Seconds of processor time, all threads together"
    yield f"{what}; networks in {'bfloat16' if bfloat16_is_fast(device) else 'float32'}."
    yield ""
    yield "| system | work | seconds | peak memory so far | times | hours in all |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        resolved = configuration.resolve(config, name)
        channels = build_system(resolved["system"]["name"], resolved["system"]["parameters"]).channels
        rows = itertools.chain(solver_rows(resolved, device), network_rows(resolved, device, channels))
        for work, unit, seconds, peak, count, meaning in rows:
            hours = seconds * count / 3600
            yield f"| {name} | {work} | {seconds:.3g} a {unit} | {peak} | {count:.3g} ({meaning}) | {hours:.3g} |"


def cut(config: dict, names: list[str]) -> dict:
    """The same sizes with few steps, members and frames: an overlay."""
    few = {
        "steps": 2,
        "log_every": 1,
        "warmup": 1,
        "checkpoint_every": 1,
        "batch": 2,
        "trajectories": None,
        "frames": None,
    }
    models = {
        name: {"training": few, **({"diffusion": {"anchor_gap": 4}} if "diffusion" in spec else {})}
        for name, spec in config["models"].items()
    }
    methods = {
        name: {"steps": 4, "segment_steps": 2, **({"leads": [1, 2]} if "leads" in spec else {})}
        for name, spec in config["methods"].items()
    }
    rollout = {"members": 2, "steps": 4, "segment_steps": 2, "frame_stride": 1, "block": 2, "lags": 3}
    ensemble = {"starts": 2, "members": 2, "leads": [1, 2]}
    metrics = {"window": 2, "map_lags": 2, "ensemble": ensemble, "diagnose": {"pairs": 4, "grid": 5}}
    override = {"models": models, "methods": methods, "rollout": rollout, "metrics": metrics}
    splits = {key: {"members": 2, "frames": 12} for key in ("train", "validation", "test")}
    systems = {}
    for name in names:
        step = config["systems"][name]["emulator"]["step"]
        systems[name] = {"data": {"spin_up": 2 * step, "shard_members": 1, "splits": splits}, "override": override}
    figures = {"fields": {"steps": [0, 2, 4], "member": 0}}
    return {"run": "stages", "use": {"systems": names}, "systems": systems, "figures": figures}


def stage_lines(config: dict, names: list[str], device) -> Iterator[str]:
    yield "Every stage at full size, with few steps: the slowest job of each."
    yield ""
    yield "| system | stage | jobs | seconds of the slowest job |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        whole = configuration._merge(json.loads(json.dumps(config)), cut(config, names))
        overlay = Path(folder) / "stages.json"
        overlay.write_text(json.dumps(whole))
        line = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            ROOT / "Snakefile",
            "--directory",
            folder,
            "--cores",
            "1",
        ]
        subprocess.run([*line, "--quiet", "rules", "--configfile", overlay, "--", "all"], check=True)
        slowest: dict[tuple, list[float]] = {}
        for path in sorted(Path(folder, "results", "stages").rglob("provenance/*.json")):
            record = json.loads(path.read_text())
            if "stage" in record:
                system = next((name for name in names if f"/{name}/" in str(path)), "all")
                slowest.setdefault((system, record["stage"]), []).append(record["wall_seconds"])
        for (system, stage), seconds in slowest.items():
            yield f"| {system} | {stage} | {len(seconds)} | {max(seconds):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--configfile", type=Path, default=ROOT / "config" / "paper.yaml")
    parser.add_argument("--stages", action="store_true", help="run the workflow itself, with few steps")
    parser.add_argument("systems", nargs="*")
    given = parser.parse_args()
    device = select_device("auto")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    configuration._merge(config, yaml.safe_load(given.configfile.read_text()))
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu.group(1)
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    lines = [f"# {given.configfile.name} on {machine}, {threads}, torch {torch.__version__}", ""]
    measure = stage_lines if given.stages else scale_lines
    for line in measure(config, given.systems or config["use"]["systems"], device):
        lines.append(line)
        print(line, flush=True)
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    described = machine if device.type == "cuda" else platform.machine() + " " + machine
    tag = re.sub(r"[^A-Za-z0-9]+", "-", described).strip("-")
    kind = "stages" if given.stages else "scale"
    path = folder / f"{config['run']}_{kind}_{datetime.date.today()}_{tag}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path)


if __name__ == "__main__":
    main()
