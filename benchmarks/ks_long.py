"""Millions of steps of the Kuramoto-Sivashinsky flow: python benchmarks/ks_long.py FOLDER --seed 1 --methods pointwise sns

Data and models are those of benchmarks/ks_seeds.py in FOLDER/<seed>, made where they are missing. Each method makes
`--steps` steps of `--members` members from states of the solver, and every step is measured. The reference is a run of the
solver of the same size, in double precision, and the row `solver` is another one. What was measured is kept in FOLDER/<seed>/long,
and a method that is there is not run again. Prints a table of the whole run, and one of its tenths.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ks_seeds import OVERLAYS, make_data, method_of, settings, train_all

from sns_core.data.emulation import Emulation
from sns_core.device import use_threads
from sns_core.methods.solver import Solver
from sns_core.metrics.distances import spectrum_error
from sns_core.metrics.lost import LOST_BEYOND, NOT_LOST
from sns_core.rollout.engine import iterate
from sns_core.streams import MemberStreams, generator

SPIN_UP = 500.0  # time units from random states to the attractor
TENTHS = 10  # parts of a run that are measured by themselves
SOLVERS = ("reference", "solver")  # two runs of the solver, from different random states


@dataclass(frozen=True)
class Measured:
    """Means over the steps of each tenth of a run, member by member, NaN from the tenth on in which a member is lost.

    energy, energy_squared, change: (tenth, member), the mean square of a frame, its square, and the mean square of what a
    step changes; power: (tenth, member, K), that of each mode; lost_step: (member,), NOT_LOST where a member lives to the
    end; seconds: of processor time.
    """

    energy: np.ndarray
    energy_squared: np.ndarray
    change: np.ndarray
    power: np.ndarray
    lost_step: np.ndarray
    seconds: float


def measure(start: torch.Tensor, frames: Iterator[torch.Tensor], steps: int) -> Measured:
    """Follow `steps` frames (B, 1, 1, N) after `start`; `steps` is a multiple of TENTHS."""
    members, modes = len(start), start.shape[-1] // 2 + 1
    sums = torch.zeros(TENTHS, members, 3 + modes, dtype=torch.float64)
    lost_step, before, began = torch.full((members,), NOT_LOST), start, time.process_time()
    for step, frame in zip(range(1, steps + 1), frames, strict=True):
        lost = ~(frame.abs().flatten(1).amax(1) <= LOST_BEYOND) & (lost_step < 0)  # NaN counts as lost
        lost_step[lost] = step
        energy = frame.square().mean((1, 2, 3))
        change = (frame - before).square().mean((1, 2, 3))
        power = torch.fft.rfft(frame[:, 0, 0], norm="ortho").abs().square()
        sums[(step - 1) * TENTHS // steps] += torch.cat([torch.stack([energy, energy**2, change], 1), power], 1)
        before = frame
    means = (sums / (steps // TENTHS)).numpy()
    last = np.where(lost_step.numpy() < 0, TENTHS, (lost_step.numpy() - 1) * TENTHS // steps)
    means[np.arange(TENTHS)[:, None] >= last] = np.nan
    return Measured(*np.moveaxis(means[..., :3], -1, 0), means[..., 3:], lost_step.numpy(), time.process_time() - began)


def attractor_states(emulation: Emulation, seed: int, name: str, members: int) -> torch.Tensor:
    """Return states of the solver (members, 1, 1, N) after a spin-up from random ones, in double precision."""
    system = emulation.build_system(dtype=torch.float64)
    start = system.initial_state(members, generator(seed, "long run", name))
    return system.advance(start, round(SPIN_UP / system.dt))


def make_run(name: str, seed: int, folder: Path, resolved: dict, members: int, steps: int) -> Measured:
    """Make and measure a run of the solver or of a method."""
    manifest = make_data(resolved, seed, folder)
    emulation = Emulation.read(manifest)
    states = attractor_states(emulation, seed, name, members)
    solver = Solver(
        emulation.build_system(dtype=torch.float64), emulation.resolution, emulation.step, emulation.scale().double()
    )
    carry, method = solver.start(states), solver
    frames = solver.frame(carry)
    if name not in SOLVERS:
        files = train_all(resolved, seed, manifest, folder)
        method, frames = method_of(name, resolved["methods"][name], files, manifest, seed, folder), frames.float()
        carry = method.start(frames)
    streams = MemberStreams(seed, "long run", name, members=range(members))
    return measure(frames, (frame for _, frame, _ in iterate(method, carry, streams, range(1, steps + 1))), steps)


def score(part: slice, run: Measured, reference: Measured, shells: tuple[int, int]) -> dict[str, str]:
    """Return the scores of some tenths of a run; errors are those of a mean over independent members.

    Only members that live to the end of these tenths count. Ratios are to the whole reference.
    """
    alive = ~np.isnan(run.energy[part]).any(0)
    row = {"members": f"{alive.sum()} of {len(alive)}"}
    if not alive.any():
        return row
    power, truth = run.power[part][:, alive].mean((0, 1)), reference.power.mean((0, 1))
    row["spectrum error"] = f"{spectrum_error(power, truth, shells):.5f}"
    means = {
        "energy": (run.energy[part][:, alive].mean(0), reference.energy.mean()),
        "its variance": (_variance(run, part, alive), _variance(reference, slice(None), slice(None)).mean()),
        "squared change": (run.change[part][:, alive].mean(0), reference.change.mean()),
    }
    for name, (values, unit) in means.items():
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        row[name] = f"{values.mean() / unit:.4f} ± {error / unit:.4f}"
    return row


def _variance(run: Measured, part: slice, members) -> np.ndarray:
    """Return the mean square deviation of each member's energy from the mean energy of all these members."""
    mean = run.energy[part][:, members].mean()
    return (run.energy_squared[part][:, members] - 2 * mean * run.energy[part][:, members]).mean(0) + mean**2


def table(rows: list[dict]) -> str:
    """Return rows as a table of Markdown."""
    data = pd.DataFrame(rows).fillna("")
    lines = ["| " + " | ".join(data.columns) + " |", "|---" * len(data.columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in data.to_numpy())])


def main() -> None:
    """Read the arguments, make what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that of ks_seeds.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["pointwise", "sns"])
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50_000, help="a multiple of ten")
    arguments = parser.parse_args()
    use_threads(1)
    resolved, folder, runs = settings(OVERLAYS), arguments.folder / str(arguments.seed), {}
    resolved["methods"] = {name: resolved["methods"][name] for name in arguments.methods}
    for name in [*SOLVERS, *arguments.methods]:
        file = folder / "long" / f"{name}.npz"
        if not file.exists():
            measured = make_run(name, arguments.seed, folder, resolved, arguments.members, arguments.steps)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **vars(measured))
        with np.load(file) as content:
            runs[name] = Measured(**content)
        print(f"{name}: {float(runs[name].seconds):.0f} seconds", flush=True)
    shells, reference = tuple(resolved["metrics"]["shells"]), runs.pop("reference")
    print(
        table([{"method": name, **score(slice(None), measured, reference, shells)} for name, measured in runs.items()]),
        "\n",
    )
    print(
        table(
            [
                {"method": name, "tenth": tenth + 1, **score(slice(tenth, tenth + 1), measured, reference, shells)}
                for name, measured in runs.items()
                for tenth in range(TENTHS)
            ]
        )
    )


if __name__ == "__main__":
    main()
