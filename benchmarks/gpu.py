"""One part of the measurements on a GPU. benchmarks/gpu.sh runs all parts, each under its own time limit.

    python benchmarks/gpu.py PART [--device cpu] [--sizes tiny]

The parts: `tests`, the tests that need a GPU; `equality`, results beside those of the CPU, with their tolerances;
`solvers`, rates beside the bound by the memory's bandwidth; `networks`, rates and memory of training steps at the widths
of config/workstation.yaml and config/paper.yaml; `rollouts`, rates of the methods of a gallery folder with and without CUDA
graphs; `training`, the models of that folder trained anew, as far as the time suffices.

Prints a Markdown table and flushes each row, so a part that is stopped leaves what it has measured. No part reads
netCDF files. `tests` needs pytest, and some of these tests need netCDF4 and dask.
"""

import argparse
import copy
import datetime
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from run import memory_traffic

from sns_core.data.emulation import Emulation
from sns_core.data.pairs import Dataset, PairSampler
from sns_core.data.shards import moments, statistics_of
from sns_core.device import can_compile, select_device
from sns_core.evaluation.timing import timed
from sns_core.methods.base import Hardware, Method
from sns_core.methods.build import build_method
from sns_core.methods.calibration import CALIBRATION
from sns_core.plugins import is_calibrated
from sns_core.processes import ProcessGroup
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams, generator
from sns_core.systems import System, build_system
from sns_core.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
# Networks and batches of config/workstation.yaml and config/paper.yaml, by model. A bare machine cannot read YAML, so they
# are repeated here; tests/unit/test_benchmarks.py compares.
DEEP = {"multipliers": [2, 2, 2], "blocks": 2, "patch": 1, "head_width": 128}
SURROGATE = {**DEEP, "attention": False, "head_features": "bottleneck", "head_kind": "categorical", "landmarks": False,
             "centred": False}  # fmt: skip
DENOISER = {**DEEP, "attention": True, "head_kind": "ordinal", "landmarks": True, "centred": True}
NETWORKS = {
    "workstation": {
        "pointwise": {"width": 32, **SURROGATE},
        "sns_residual": {"width": 32, "head_features": "encoder", **DENOISER},
    },
    "paper": {
        "pointwise": {"width": 64, **SURROGATE},
        "sns_residual": {"width": 64, "head_features": "bottleneck", **DENOISER},
    },
}
BATCHES = {"pointwise": 32, "sns_residual": 64}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    `resolutions` and `batches` of solvers; `frame`: points per side of the frames of `networks`; `width`: largest width of
    a network; `samples`: largest batch of a training step; `members` of rollouts; `seconds` and `repeats` of each timing;
    `compile`: whether networks are compiled; `solver`: changes of the solver's parameters, `frames`: number of frames and
    `spin_up`: time before the first one, and `steps` of the training (None: those of the gallery folder).
    """

    resolutions: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batches: tuple[int, ...] = (1, 8, 64)
    frame: int = 64
    width: int = 64
    samples: int = 64
    members: tuple[int, ...] = (8, 64)
    seconds: float = 1.0
    repeats: int = 5
    compile: bool = True
    solver: tuple[tuple[str, float], ...] = ()
    frames: int | None = None
    spin_up: float | None = None
    steps: int | None = None


SIZES = {
    "full": Sizes(),
    # For a test on a CPU: a few seconds for each part, without the minutes that a compiler takes.
    "tiny": Sizes(resolutions=(32,), batches=(1, 2), frame=16, width=4, samples=2, members=(2,), seconds=0.01, repeats=1,
                  compile=False, solver=(("resolution", 64), ("dt", 0.01)), frames=170, spin_up=0.1, steps=2),
}  # fmt: skip


def head(*columns: str) -> str:
    """Return the first two lines of a table."""
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def row(*cells) -> str:
    return f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in cells)} |"


def peak_memory(device: torch.device) -> str:
    """Return the peak of the GPU's memory since the last call, and begin a new one."""
    if device.type != "cuda":
        return ""
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return f"{peak:.2f} GiB"


def rate(advance, units: float, sizes: Sizes, device: torch.device, least: int = 1) -> float:
    """Return units per second, where `advance(count)` makes `count` steps of `units` units each."""
    return units / timed(advance, least, 100000, sizes.repeats, sizes.seconds, device)["seconds"]


# --- parts ---


def tests(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """Run the tests with the mark `gpu`; where torch sees no GPU, they are skipped."""
    yield "## Tests that need a GPU\n"
    if importlib.util.find_spec("pytest") is None:
        yield "Not run: pytest is missing."
        return
    files = [path for path in sorted((ROOT / "tests/unit").glob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-rs",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*words, *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    lines = [
        line
        for line in done.stdout.splitlines()
        if re.match("FAILED|ERROR|SKIPPED|E  |.*(passed|failed|skipped)", line)
    ]
    yield "\n".join(f"    {line}" for line in lines[-20:])


def equality(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """The same numbers on the CPU and on the device: largest difference in units of the standard deviation."""
    yield "## Equality with the CPU\n"
    yield "Largest difference in standard deviations of the CPU's result. Networks without TF32 and without compilation.\n"
    yield head("result", "difference", "tolerance", "")
    for name, dtype, options, steps, tolerance in (
        ("KolmogorovFlow", torch.float64, {"advection": "advective", "dt": 1e-3}, 50, 1e-11),
        ("KolmogorovFlow", torch.float64, {"advection": "stress", "dt": 1e-3}, 50, 1e-11),
        ("KolmogorovFlow", torch.float32, {"advection": "stress", "dt": 1e-3}, 10, 1e-4),
        ("TwoLayerQG", torch.float64, {"arithmetic": "complex"}, 50, 1e-9),
        ("TwoLayerQG", torch.float64, {"arithmetic": "real"}, 50, 1e-9),
    ):
        systems = [build_system(name, options, dtype, place) for place in (CPU, device)]
        state = systems[0].initial_state(2, generator("benchmark"))
        results = [system.advance(state.to(system.device), steps).cpu() for system in systems]
        label = ", ".join([name, str(dtype).removeprefix("torch."), *map(str, options.values()), f"{steps} steps"])
        yield verdict(label, *results, tolerance)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    gallery = Gallery()
    for name in gallery.methods:
        frames = []
        for place in (CPU, device):
            method, carry = gallery.build(name, Hardware(place, "float32")), gallery.start(2)
            streams = MemberStreams(0, "benchmark", members=range(2))
            frames.append(method.step(method.start(carry.to(place)), streams.at(1))[0]["frame"].cpu())
        yield verdict(f"one step of the method {name}, float32", *frames, 1e-3)


def verdict(label: str, on_cpu: torch.Tensor, on_device: torch.Tensor, tolerance: float) -> str:
    difference = float((on_cpu - on_device).abs().max() / on_cpu.std())
    return row(label, difference, f"{tolerance:.0e}", "holds" if difference <= tolerance else "**DOES NOT HOLD**")


def copy_bandwidth(device: torch.device, sizes: Sizes) -> float:
    """Return the bytes per second, read and written together, of a copy that exceeds the caches."""
    source = torch.zeros((2**30 if device.type == "cuda" else 2**24) // 4, device=device)
    target = torch.empty_like(source)
    return rate(lambda count: [target.copy_(source) for _ in range(count)], 2.0 * source.nbytes, sizes, device)


def solvers(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """Rates of the fastest forms, and the share of the rate at which the memory could move their arrays."""
    yield "## Solvers, steps per second times trajectories\n"
    bandwidth = copy_bandwidth(device, sizes)
    yield f"A copy moves {bandwidth / 1e9:.0f} GB per second, read and written together. MB: the spectra and fields of a step, each"
    yield "written and read once; the bound is the bandwidth over these.\n"
    yield head("solver", "N", "batch", "rate", "MB per step", "bound", "rate / bound", "peak memory")
    forms = (
        ("KolmogorovFlow", torch.float32, {"advection": "stress"}),
        ("TwoLayerQG", torch.float64, {"arithmetic": "real"}),
    )
    for name, dtype, options in forms:
        for n in sizes.resolutions:
            traffic = memory_traffic(name, n, dtype)
            time_step = {"dt": 0.25 / n} if name == "KolmogorovFlow" else {}
            for batch in sizes.batches:
                system = build_system(name, {"resolution": n, **options, **time_step}, dtype, device)
                try:
                    carry = system.start(system.initial_state(batch, generator("benchmark")))
                    advance = partial(system.run, carry)
                    measured = rate(advance, batch, sizes, device, least=system.check_every)
                except torch.OutOfMemoryError:
                    yield row(name, n, batch, "out of memory", "", "", "", peak_memory(device))
                    continue
                bound = bandwidth / traffic
                yield row(name, n, batch, measured, traffic / 1e6, bound, measured / bound, peak_memory(device))


def noise_dataset(system: dict, resolution: int, channels: int = 1, frames: int = 200) -> Dataset:
    """Frames of white noise, as a data set. The cost of training does not depend on their values."""
    frames = np.random.default_rng(0).standard_normal((8, frames, channels, resolution, resolution), dtype=np.float32)
    amplitude = [[1.0 / (1 + k) for k in range(int(shell_index(resolution).max()) + 1)]] * channels
    measured = {"std": [1.0] * channels, "increment_std": [1.0] * channels, "shell_amplitude": amplitude}
    return Dataset([frames], {"statistics": measured, "system": system, "identity": "benchmark"})


def train(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.train_step()


def networks(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """Rates of whole training steps: batch, loss, gradients, optimiser, average."""
    yield f"## Training steps on frames of {sizes.frame} x {sizes.frame}, samples per second\n"
    yield head("widths", "model", "M parameters", "batch", "precision", "network", "samples per second", "peak memory")
    gallery = Gallery()
    dataset = noise_dataset(gallery.system, sizes.frame)
    ways = [("float32", "plain"), ("bfloat16", "plain")]
    if sizes.compile and can_compile(device):
        ways += [("bfloat16", "compiled"), ("bfloat16", "compiled, CUDA graphs")]
    for scale, models in NETWORKS.items():
        for name, network in models.items():
            batch = min(BATCHES[name], sizes.samples)
            for precision, way in ways:
                spec = copy.deepcopy(gallery.models[name])
                spec["network"] = {**network, "width": min(network["width"], sizes.width)}
                spec["training"] |= {"batch": batch, "trajectories": None, "frames": None}
                trainer = Trainer(name, spec, dataset, 0, ProcessGroup(device), precision, way == "compiled")
                if "graphs" in way:
                    trainer.training_network = torch.compile(trainer.network, dynamic=False, mode="reduce-overhead")
                parameters = sum(p.numel() for p in trainer.network.parameters()) / 1e6
                try:
                    measured = rate(partial(train, trainer), batch, sizes, device)
                except torch.OutOfMemoryError:
                    measured = "out of memory"
                yield row(scale, name, parameters, batch, precision, way, measured, peak_memory(device))


class Gallery:
    """A gallery folder as far as JSON and model files go: its configuration, data manifest, models and methods."""

    def __init__(self, folder: Path = ROOT / "gallery" / "re1e4"):
        self.configuration = json.loads((folder / "config.json").read_text())
        (self.name,) = self.configuration["use"]["systems"]
        self.folder, settings = folder / self.name, self.configuration["systems"][self.name]
        parameters = dict(settings["solver"])
        self.system = {"name": parameters.pop("class"), "parameters": parameters}
        self.emulator, self.data, self.models = settings["emulator"], settings["data"], self.configuration["models"]
        self.emulation = Emulation.read(self.folder / "shards" / "manifest.json")
        self.methods = {
            name: spec for name in self.configuration["use"]["methods"] if self.files(name, spec := self.spec(name))
        }

    def spec(self, method: str) -> dict:
        return self.configuration["methods"][method]

    def files(self, method: str, spec: dict) -> dict[str, Path]:
        """Return the file of each role of a method; empty where the folder lacks one, and for the solver."""
        files = {role: self.folder / "models" / f"{model}.safetensors" for role, model in spec["models"].items()}
        if is_calibrated(spec["kind"]):
            files[CALIBRATION] = self.folder / "calibrations" / f"{method}.json"
        return files if all(path.exists() for path in files.values()) else {}

    def build(self, method: str, hardware: Hardware) -> Method:
        spec = {**self.methods[method], "anchor_frame": "initial"}  # the folder keeps no training frames
        return build_method(spec, self.files(method, spec), self.emulation, hardware=hardware)

    def start(self, members: int) -> torch.Tensor:
        """Return states of the solver (members, C, N, N) shortly after its start: rates do not depend on their values."""
        system = self.emulation.build_system()
        return system.initial_state(members, generator("benchmark"))


def rollouts(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """Rates of whole steps of the methods, with their models, beside the surrogate's."""
    yield "## Rollouts of gallery/re1e4, members x steps per second\n"
    compiled = "CUDA graphs" if device.type == "cuda" else "compiled"
    yield head("method", "members", "plain", compiled, "step / surrogate's", f"with {compiled}", "peak memory")
    gallery = Gallery()
    surrogate_last = sorted(gallery.methods, key=lambda name: gallery.methods[name]["kind"] == "pointwise")
    for members in sizes.members:
        states, surrogate = gallery.start(members).to(device), None
        for name in reversed(surrogate_last):
            measured = []
            for compile in (False, True)[: 1 + sizes.compile]:
                method = gallery.build(name, Hardware(device, "auto", compile))
                carry, streams = (
                    method.start(states),
                    MemberStreams(0, "benchmark", members=range(members), device=device),
                )

                def advance(count, method=method, carry=carry, streams=streams):
                    for step in range(count):
                        carry, _ = method.step(carry, streams.at(step + 1))

                advance(3)  # compiles, and records the graphs
                measured.append(rate(advance, members, sizes, device, least=4))
            surrogate = surrogate or measured
            costs = [left / right for left, right in zip(surrogate, measured, strict=True)]
            missing = [""] * (2 - len(measured))
            yield row(name, members, *measured, *missing, *costs, *missing, peak_memory(device))


def training(device: torch.device, sizes: Sizes) -> Iterator[str]:
    """Simulate the gallery run's training data in memory, and train its models one after the other."""
    yield "## Training the models of gallery/re1e4\n"
    gallery = Gallery()
    began = time.perf_counter()
    datasets = [simulated(gallery, split, device, sizes) for split in ("train", "validation")]
    datasets[1] = Dataset(datasets[1].shards, datasets[0].manifest)
    yield f"{time.perf_counter() - began:.1f} seconds for the data, of shapes {' and '.join(str(d.shards[0].shape) for d in datasets)}.\n"
    yield head("model", "step", "seconds", "loss", "validation", "peak memory")
    used = {model for method in gallery.methods.values() for model in method["models"].values()}
    for name in [model for model in gallery.models if model in used]:
        spec = copy.deepcopy(gallery.models[name])
        spec["training"]["steps"] = sizes.steps or spec["training"]["steps"]
        trainer = Trainer(name, spec, datasets[0], 0, ProcessGroup(device), "auto")
        held_out = PairSampler(
            datasets[1], trainer.sampler.frames, trainer.sampler.anchor_gap, spec["training"]["symmetries"]
        )
        began = time.perf_counter()
        while trainer.step < spec["training"]["steps"]:
            trainer.train_step()
            if trainer.step % spec["training"]["log_every"] == 0 or trainer.step == spec["training"]["steps"]:
                trainer.log(held_out)
                last = trainer.history.rows[-1]
                yield row(
                    name,
                    trainer.step,
                    time.perf_counter() - began,
                    last["loss"],
                    last["validation"],
                    peak_memory(device),
                )


def simulated(gallery: Gallery, split: str, device: torch.device, sizes: Sizes) -> Dataset:
    """Return the frames of a split of the gallery's run, simulated in memory, with the statistics of these frames."""
    members, count = (gallery.data["splits"][split][name] for name in ("members", "frames"))
    parameters = {**gallery.system["parameters"], **dict(sizes.solver)}
    system: System = build_system(gallery.system["name"], parameters, torch.float32, device)
    carry = system.start(
        system.initial_state(members, [generator(0, "initial state", split, m) for m in range(members)])
    )
    carry = system.run(carry, round((sizes.spin_up or gallery.data["spin_up"]) / system.dt))
    frames, points = [], gallery.emulator["resolution"]
    for _ in range(sizes.frames or count):
        frames.append(system.observe(system.state(carry), points).cpu())
        carry = system.run(carry, round(gallery.emulator["step"] / system.dt))
    block = torch.stack(frames, 1).numpy()
    described = {"name": gallery.system["name"], "parameters": parameters}
    return Dataset(
        [block], {"statistics": statistics_of([moments(block)]), "system": described, "identity": "benchmark"}
    )


PARTS = {part.__name__: part for part in (tests, equality, solvers, networks, rollouts, training)}


def machine(device: torch.device) -> str:
    """Return the head of the page: the device, its driver, the versions and the date."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        words = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            name = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            name = torch.cuda.get_device_name(device)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"# {name}, {versions}, {os.cpu_count()} cores, {datetime.date.today()}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["machine", *PARTS])
    parser.add_argument(
        "--device", default="cuda", help="cuda, or cpu for a test of this script (default: %(default)s)"
    )
    parser.add_argument("--sizes", default="full", choices=SIZES, help="tiny: for a test of this script")
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    if arguments.part == "machine":
        print(machine(device))
        return
    for line in PARTS[arguments.part](device, SIZES[arguments.sizes]):
        print(line, flush=True)
    print(flush=True)


if __name__ == "__main__":
    main()
