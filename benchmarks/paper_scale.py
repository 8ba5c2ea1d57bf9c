"""What the published scale asks of this machine: seconds and memory a step, and what the whole run would take.

    python benchmarks/paper_scale.py [system ...]      writes benchmarks/results/paper_scale_<date>_<machine>.md

Every stage runs at full size (solver, networks, batch), for a few steps only; the rest is multiplication.
"""

import datetime
import itertools
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow" / "scripts")]
import configuration  # noqa: E402

import sns_core.systems  # noqa: E402
from sns_core.data.trajectories import steps_per_frame  # noqa: E402
from sns_core.runtime import autocast, generator, select_device  # noqa: E402
from sns_core.systems import build_system  # noqa: E402
from sns_core.training.models import build_network  # noqa: E402


def synchronise(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device, work, repeats: int) -> float:
    """Median seconds of `repeats` runs after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - began)
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
    for name in ("pointwise", "sns_white"):
        spec = resolved["models"][name]
        training, network = spec["training"], build_network(spec, channels).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
        frames = torch.randn(training["batch"], network.frames_in, channels, resolution, resolution, device=device)

        def step(network=network, frames=frames, optimiser=optimiser, unroll=training["unroll"]):
            with autocast(device):
                loss = sum(network(frames)[0].float().square().mean() for _ in range(unroll))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        seconds = timed(device, step, 1)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        label = f"training {name}, {parameters:.1f} M parameters, batch {training['batch']}"
        yield label, "step", seconds, memory(device), training["steps"], "the whole training"
        members, rollout = resolved["rollout"]["members"], resolved["rollout"]["steps"]
        with torch.no_grad(), autocast(device):
            seconds = timed(device, lambda n=network, f=frames[:members]: n(f), 2)
        label = f"rollout, one call of {name}, {members} members"
        yield label, "call", seconds, memory(device), rollout, f"{rollout} steps of one call each"


def main(names: list[str]) -> None:
    device = select_device("auto")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    configuration._merge(config, yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()))
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu.group(1)
    lines = [
        f"# The published scale on {machine}, {torch.get_num_threads()} threads, torch {torch.__version__}", "",
        "| system | work | seconds | peak memory so far | times | hours in all |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in names or config["use"]["systems"]:
        resolved = configuration.resolve(config, name)
        channels = getattr(sns_core.systems, resolved["system"]["name"]).channels
        rows = itertools.chain(solver_rows(resolved, device), network_rows(resolved, device, channels))
        for work, unit, seconds, peak, count, meaning in rows:
            hours = seconds * count / 3600
            lines.append(
                f"| {name} | {work} | {seconds:.3g} a {unit} | {peak} | {count:.3g} ({meaning}) | {hours:.3g} |"
            )
            print(lines[-1], flush=True)
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    tag = re.sub(r"[^A-Za-z0-9]+", "-", machine if device.type == "cuda" else platform.machine() + " " + machine).strip(
        "-"
    )
    path = folder / f"paper_scale_{datetime.date.today()}_{tag}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
