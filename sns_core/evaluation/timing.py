"""Measure the cost of methods: seconds, network calls, memory and energy of their steps, one method after the other.

Each contender is timed in a separate process, forked from this one, so that the peak of memory belongs to it alone. The
solver on other grids runs in its fastest form, with as many members and the same threads and device. Networks run in
the configured precision, the solver in float32; the table names both.
"""

import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import xarray as xr

from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.device import precision_on, select_device, use_threads
from sns_core.evaluation.coarse_solver import regridded
from sns_core.files import FileTree, write_json
from sns_core.grids import with_longer_side
from sns_core.methods.base import Hardware
from sns_core.methods.build import build_method
from sns_core.progress import progress
from sns_core.rollout.engine import roll
from sns_core.streams import MemberStreams

POWERCAP = Path("/sys/class/powercap")
UNTIMED = 2  # first steps of a method, which are not timed
SOLVER_STEPS = (
    8  # a solver is timed over at least 8 time steps, because its guard checks the state only once in a while
)


class EnergyMeter:
    """Joules between two readings; None where nothing can be read.

    On a CPU the counters (RAPL) are those of whole processor packages and include every other process. On an NVIDIA GPU
    the energy is the power at the end, from nvidia-smi, times the seconds.
    """

    def __init__(self, device: torch.device):
        self.device = device
        packages = [path for path in POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1]
        self.packages = [path for path in sorted(packages) if os.access(path / "energy_uj", os.R_OK)]

    def begin(self) -> None:
        """Read the clock and the counters."""
        self.began, self.at = time.perf_counter(), self._counters()

    def end(self) -> float | None:
        """Return the joules since `begin`; None where nothing can be read."""
        if self.device.type == "cuda":
            watts = self._watts()
            return None if watts is None else watts * (time.perf_counter() - self.began)
        if not self.packages:
            return None
        joules = 0.0
        for path, before, after in zip(self.packages, self.at, self._counters(), strict=True):
            round_trip = int((path / "max_energy_range_uj").read_text()) if after < before else 0
            joules += (after - before + round_trip) / 1e6
        return joules

    def _counters(self) -> list[int]:
        return [int((path / "energy_uj").read_text()) for path in self.packages]

    def _watts(self) -> float | None:
        command = [
            "nvidia-smi",
            "--query-gpu=power.draw",
            "--format=csv,noheader,nounits",
            f"--id={self.device.index or 0}",
        ]
        try:
            return float(subprocess.run(command, capture_output=True, text=True, timeout=20).stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None


def timed(advance: Callable[[int], object], least: int, most: int, repeats: int, seconds: float, device) -> dict:
    """Time one step of `advance(count)`, which makes `count` steps, always from the same state.

    `repeats` stretches of equal length are timed, together for about `seconds`. A stretch has `least` to `most` steps,
    a multiple of `least`. Returns median, least and most seconds per step, the steps per stretch and joules per step.
    """

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def once(count: int) -> float:
        wait()
        tick = time.perf_counter()
        advance(count)
        wait()
        return time.perf_counter() - tick

    once(least)  # warm-up: plans of transforms, kernels, pages of memory
    count = least * max(1, int(min(most / least, seconds / repeats / once(least))))
    meter, spent, joules = EnergyMeter(device), [], []
    for _ in range(repeats):
        meter.begin()
        spent.append(once(count) / count)
        joules.append(meter.end())
    energy = None if None in joules else statistics.median(joules) / count
    return {
        "seconds": statistics.median(spent),
        "low": min(spent),
        "high": max(spent),
        "steps": count,
        "joules": energy,
    }


def in_subprocess(function: Callable, *arguments) -> dict:
    """Call a function in a separate process and return its dict, with the peak of memory there in MB.

    This process must not have used a GPU before: a forked process cannot take it over.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(_call_and_measure_memory, function, *arguments).result()


def _call_and_measure_memory(function: Callable, *arguments) -> dict:
    """Call a function, and add the peak of this process's memory in MB to the dict that it returns."""
    result = function(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    result["memory_mb"] = peak / 1e6
    if torch.cuda.is_initialized():
        result["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return result


def measure_cost(
    *, methods: FileTree, manifest: Path, initial: list[Path], grids: Path, members: int, steps: int, repeats: int,
    seconds: float, seed: int, output: Path, device: str = "auto", precision: str = "auto", compile: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Time the steps of methods, and of the solver on other grids, and write the results as JSON.

    Seconds, joules and network calls (per member) are those of one emulator step, without files and statistics.

    `methods`: name -> {"method": its kind and options, "models": role -> model file}.
    `grids`: result of `rollout_grids`.
    `members`: number of trajectories that are stepped together.
    `steps`: largest number of emulator steps in a stretch.
    `repeats`: number of stretches; the median counts.
    `seconds`: approximate time for all stretches of a method or grid.
    """
    use_threads(threads)
    shared = {"manifest": manifest, "initial": initial, "members": members, "seed": seed, "device": device,
              "precision": precision, "compile": compile, "steps": steps, "repeats": repeats, "seconds": seconds}  # fmt: skip
    with xr.open_dataset(grids) as dataset:
        tried = [
            (int(n), int(dataset["substeps"].sel(grid=n)), int(dataset["stable_steps"].sel(grid=n)))
            for n in dataset["grid"]
        ]
    waiting = [(_time_method, name, spec) for name, spec in methods.items()]
    waiting += [(_time_solver, str(points), (points, *rest)) for points, *rest in tried]
    costs = {"methods": {}, "grids": {}}
    for index in progress(len(waiting), "cost"):
        function, name, spec = waiting[index]
        costs["methods" if function is _time_method else "grids"][name] = in_subprocess(function, name, spec, shared)
    emulation = Emulation.read(manifest)
    machine = in_subprocess(_describe_machine, device, threads, precision)
    units = emulation.build_system().time_units
    write_json(output, {**costs, "members": members, "step": emulation.step, "time_units": units, "machine": machine})


def _describe_machine(device: str, threads: int, precision: str) -> dict:
    """Describe the machine: processor, cores, threads, GPU, and the number format of networks on it."""
    chosen = select_device(device)
    path = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    name = match.group(1) if match else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else None
    described = {"host": platform.node(), "processor": name, "cores": os.cpu_count(), "threads": threads, "gpu": gpu}
    return {**described, "precision": precision_on(chosen, precision)}


def _time_method(name: str, spec: dict, shared: dict) -> dict:
    """Time the emulator steps of a method, from a carry that some steps from true states have made."""
    device, emulation, states = _load_start(shared)
    method = build_method(
        spec["method"],
        spec["models"],
        emulation,
        hardware=Hardware(device, shared["precision"], shared["compile"]),
        training_frames=lambda: true_frames(shared["manifest"], shared["seed"]),
    )
    streams = MemberStreams(shared["seed"], "cost", name, members=range(len(states)), device=device)
    # A first step may cost more than all later ones: it fills a window.
    carry, calls = roll(method, method.start(states), streams, range(1, UNTIMED + 1)), {}

    def advance(count: int) -> None:
        # The step alone, without the frame that an observer would see.
        after, total = carry, 0.0
        for step in range(UNTIMED + 1, UNTIMED + count + 1):
            after, record = method.step(after, streams.at(step))
            total += float(record.calls.float().mean())
        calls["per_step"] = total / count

    times = timed(advance, method.period, shared["steps"], shared["repeats"], shared["seconds"], device)
    return {**times, "calls": calls["per_step"]}


def _time_solver(_name: str, spec: tuple[int, int, int], shared: dict) -> dict:
    """Time the emulator steps of the solver on another grid.

    `spec`: points along the longer side, time steps per emulator step, emulator steps that are known to stay stable.
    """
    points, substeps, stable = spec
    device, emulation, states = _load_start(shared)
    resolution = with_longer_side(emulation.system_parameters["resolution"], points)
    flow = emulation.build_fastest_system(device, resolution=resolution, dt=emulation.step / substeps)
    carry = flow.run(flow.start(regridded(states, resolution)), 1)
    most = max(SOLVER_STEPS, min(shared["steps"], stable) * substeps - 1)
    times = timed(
        lambda count: flow.run(carry, count), SOLVER_STEPS, most, shared["repeats"], shared["seconds"], device
    )
    for key in ("seconds", "low", "high", "joules"):
        times[key] = None if times[key] is None else times[key] * substeps
    return {**times, "calls": 0.0, "dt": flow.dt, "substeps": substeps}


def _load_start(shared: dict) -> tuple[torch.device, Emulation, torch.Tensor]:
    """Device, emulation, and the states from which every contender starts."""
    device = select_device(shared["device"])
    states = torch.from_numpy(open_members(shared["initial"], "final_state")["final_state"].values)
    return device, Emulation.read(shared["manifest"]), states[: shared["members"]].to(device)
