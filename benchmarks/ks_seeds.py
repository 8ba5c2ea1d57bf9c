"""Rivals on the Kuramoto-Sivashinsky flow with many seeds, in one process: python benchmarks/ks_seeds.py FOLDER --seeds 1 2 3

Each seed has data, trainings and noise of its own. The stages of the workflow make data and models in FOLDER/<seed>, and what
is there is not made again. Rollouts and forecasts start from the first frames of the test split, undisturbed, and what follows
in the split is the truth and the solver's own row. Prints a table: means over the seeds and their standard deviations.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.data.emulation import Emulation
from sns_core.data.pairs import load_dataset
from sns_core.device import use_threads
from sns_core.evaluation.calibration import calibrate_refinement
from sns_core.methods import FrameSpace, Hardware, Method, build_method
from sns_core.methods.calibration import CALIBRATION
from sns_core.metrics.distances import spectrum_error
from sns_core.metrics.ensembles import fair_crps
from sns_core.metrics.lost import first_lost_step, is_lost
from sns_core.plugins import is_calibrated
from sns_core.rollout.engine import iterate
from sns_core.rollout.ensemble import forecast
from sns_core.shells import shell_power
from sns_core.streams import MemberStreams
from sns_core.training import train_model
from sns_workflow.config_models import teachers_of, used_models, with_teachers
from sns_workflow.configuration import merge, read

ROOT = Path(__file__).parents[1]
OVERLAYS = [ROOT / "config" / "rivals.yaml", ROOT / "config" / "ks.yaml", Path(__file__).with_suffix(".yaml")]
LEADS = [1, 10, 40]  # steps of forecasts
DRAWS = 4  # members of each forecast
HARDWARE = Hardware(precision="float32")


def settings(overlays: list[Path]) -> dict:
    """Return what holds for the system `ks` in the default configuration with overlays."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for overlay in overlays:
        merge(config, yaml.safe_load(overlay.read_text()))
    return read(config).systems["ks"]


def make_data(resolved: dict, seed: int, folder: Path) -> Path:
    """Simulate the three splits and return their manifest."""
    manifest, data = folder / "shards" / "manifest.json", resolved["data"]
    if not manifest.exists():
        for split, size in data["splits"].items():
            simulate_trajectories(
                system=resolved["system"], emulator=resolved["emulator"], split=split, spin_up=data["spin_up"], seed=seed,
                output=folder / f"{split}.nc", device="cpu", **size,
            )  # fmt: skip
        shard_dataset(trajectories=[folder / f"{split}.nc" for split in data["splits"]], output=manifest)
    return manifest


def train_all(resolved: dict, seed: int, manifest: Path, folder: Path) -> dict[str, Path]:
    """Train the models of the methods, teachers first, and return their files."""
    names = sorted(used_models(resolved), key=lambda name: len(with_teachers([name], resolved["models"])))
    files = {name: folder / f"{name}.safetensors" for name in names}
    for name, output in files.items():
        if not output.exists():
            spec = resolved["models"][name]
            teachers = {role: files[teacher] for role, teacher in teachers_of(spec).items()}
            train_model(
                name=name, spec=spec, manifest=manifest, seed=seed, output=output, history=output.with_suffix(".csv"),
                models=teachers, device="cpu", precision="float32",
            )  # fmt: skip
    return files


def calibrate(name: str, spec: dict, models: dict[str, Path], manifest: Path, seed: int, folder: Path) -> Path:
    """Measure what a method that is calibrated follows, and return the file."""
    output = folder / "calibrations" / f"{name}.json"
    if not output.exists():
        calibrate_refinement(
            name=name,
            method=spec,
            models=models,
            manifest=manifest,
            seed=seed,
            output=output,
            device="cpu",
            precision="float32",
        )
    return output


def method_of(name: str, spec: dict, files: dict[str, Path], manifest: Path, seed: int, folder: Path) -> Method:
    """Build a method from its models, calibrated where its kind needs it."""
    models, emulation = {role: files[model] for role, model in spec["models"].items()}, Emulation.read(manifest)
    if is_calibrated(spec["kind"]):
        models |= {CALIBRATION: calibrate(name, spec, models, manifest, seed, folder)}
    space = FrameSpace(admissible=emulation.build_system().admissible)
    return build_method(spec, models, emulation, hardware=HARDWARE, frames=space)


def test_frames(manifest: Path, split: str) -> torch.Tensor:
    """Return all frames (member, time, C, H, W) of a split, in standard deviations."""
    dataset = load_dataset(manifest, split)
    members, times = np.meshgrid(np.arange(dataset.members), np.arange(dataset.frames), indexing="ij")
    return dataset.gather(members.ravel(), times.ravel()).unflatten(0, members.shape)


def long_run(method: Method, frames: torch.Tensor, streams: MemberStreams) -> torch.Tensor:
    """Return the frames (member, time, C, H, W) of a rollout that begins where `frames` do and is as long."""
    steps = range(1, frames.shape[1])
    return torch.stack(
        [frames[:, 0], *(frame for _, frame, _ in iterate(method, method.start(frames[:, 0]), streams, steps))], 1
    )


def score_run(frames: torch.Tensor, reference: torch.Tensor, shells: tuple[int, int]) -> dict[str, float]:
    """Return how many members are lost, and scores of the others; energy and change per step are shares of the solver's."""
    lost = is_lost(first_lost_step(frames.abs().flatten(2).amax(2).numpy(), 0))
    alive, scores = frames[torch.from_numpy(~lost)], {"members lost": float(lost.sum())}
    if len(alive):
        scores["spectrum error"] = float(spectrum_error(mean_power(alive), mean_power(reference), shells))
        scores["energy"] = float(alive.square().mean() / reference.square().mean())
        change = [part.diff(dim=1).square().mean().sqrt() for part in (alive, reference)]
        scores["change per step"] = float(change[0] / change[1])
    return scores


def mean_power(frames: torch.Tensor) -> np.ndarray:
    """Return the mean power of the modes in each shell, (K,), of frames (member, time, C, H, W)."""
    return shell_power(frames.numpy()).mean(0) / (frames.shape[0] * frames.shape[1])


def score_forecasts(method: Method, frames: torch.Tensor, streams: MemberStreams) -> dict[str, float]:
    """Return the CRPS after each lead, and spread over error after ten steps."""
    draws = forecast(method, frames[:, 0].repeat_interleave(DRAWS, 0), streams, LEADS)
    draws = draws.reshape(-1, DRAWS, *draws.shape[1:]).swapaxes(0, 1).astype(float)
    truth = frames[:, LEADS].numpy().astype(float)
    scores = {
        f"CRPS, {lead}": float(value)
        for lead, value in zip(LEADS, fair_crps(draws, truth).mean((0, 2, 3, 4)), strict=True)
    }
    variance = draws.var(0, ddof=1)[:, 1].mean()
    error = np.square(draws.mean(0) - truth)[:, 1].mean() - variance / DRAWS
    return scores | {"spread / error, 10": float(np.sqrt(variance / error)) if error > 0 else np.nan}


def run_seed(resolved: dict, seed: int, folder: Path) -> list[dict]:
    """Return one row per method."""
    manifest = make_data(resolved, seed, folder)
    files = train_all(resolved, seed, manifest, folder)
    frames, reference = (test_frames(manifest, split) for split in ("test", "train"))
    shells = tuple(resolved["metrics"]["shells"])
    rows = []
    for name, spec in resolved["methods"].items():
        row = {"seed": seed, "method": name}
        if name == "solver":
            rows.append({**row, **score_run(frames, reference, shells)})
            continue
        method = method_of(name, spec, files, manifest, seed, folder)
        began = time.process_time()
        rolled = long_run(method, frames, MemberStreams(seed, "run", name, members=range(len(frames))))
        row["ms per step"] = 1000 * (time.process_time() - began) / (frames.shape[1] - 1)
        streams = MemberStreams(seed, "forecast", name, members=range(len(frames) * DRAWS))
        rows.append({**row, **score_run(rolled, reference, shells), **score_forecasts(method, frames, streams)})
        print(rows[-1], flush=True)
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Return means over the seeds and their standard deviations, one row per method; members lost as a sum."""
    columns = [name for name in table.columns if name not in ("seed", "method")]
    lines = ["| " + " | ".join(["method", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, part in table.groupby("method", sort=False):
        cells = [
            f"{part[name].mean():.2g} ± {part[name].std(ddof=1):.1g}" if part[name].notna().any() else ""
            for name in columns
        ]
        lines.append("| " + " | ".join([f"`{method}`", *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, make all seeds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets a folder for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", nargs="+", help="names of methods beside the solver (default: all)")
    parser.add_argument(
        "--overlays", type=Path, nargs="+", default=OVERLAYS, help="configurations on top of the default"
    )
    arguments = parser.parse_args()
    use_threads(1)
    resolved, rows = settings(arguments.overlays), []
    if arguments.methods:
        resolved["methods"] = {name: resolved["methods"][name] for name in ["solver", *arguments.methods]}
    for seed in arguments.seeds:
        rows += run_seed(resolved, seed, arguments.folder / str(seed))
        pd.DataFrame(rows).to_csv(arguments.folder / "seeds.csv", index=False)
        print(markdown(pd.DataFrame(rows)), flush=True)


if __name__ == "__main__":
    main()
