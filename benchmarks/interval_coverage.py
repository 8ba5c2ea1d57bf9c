"""Coverage of the stated intervals of 90 %, on members of the solver that took no part.

    python benchmarks/interval_coverage.py --ensemble FILE.nc [--settle 40] [--draws 100]

FILE.nc: statistics of a large ensemble, as `solver_floors.py --ensemble FILE.nc` writes them. Each draw takes the members of a
run and, of the others, those of the reference. Both follow one law, so the truth of every score is its ideal: 1 for ratios, 0
for distances. The spectrum is also moved by a known distance. Writes
benchmarks/results/interval_coverage_<date>_<machine>.md. 80 members of the demo's flow take two minutes of an idle core.
"""

import argparse
import datetime
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import yaml
from solver_floors import ROOT, as_markdown, settled

from sns_core.metrics.bootstrap import distance_interval, interval, pooled, resampling_weights
from sns_core.metrics.distances import cumulative_difference, log_ratio
from sns_core.metrics.rollout_metrics import spectrum_error_interval
from sns_core.metrics.scorecard import SCORES, block_means, score_stretches
from sns_core.metrics.zonal import Profiles, mean_flow_scores

# Steps of a run -> members of the reference and their steps, None for all steps.
SIZES = {500: (64, None), 1000: (16, 1000), 3000: (64, None)}
MANY = 1500  # draws of the longest runs for five scores; 80 members make ten runs that share none
UNKNOWN = ("rate_error",)  # its truth is the mean over blocks of the noise of a block, not 0
DEPARTURES = (0.0, 0.02, 0.05)  # decades that every other shell is moved up, and the others down


def in_windows(ensemble: xr.Dataset, window: int) -> xr.Dataset:
    """Return the means over whole windows of `window` steps, (member, window, ...)."""
    blocks, length = block_means(ensemble, float(ensemble["rate_of_change"].mean())), int(ensemble["block"][0])
    means = blocks.coarsen(block=window // length, boundary="trim").mean().rename(block="window")
    return means.drop_vars(["member", "window"], errors="ignore").load()


def as_run(windows: xr.Dataset, window: int) -> xr.Dataset:
    """Return the windows (member, window, ...) of a run as `stretches` returns them, (unit, ...)."""
    number = xr.DataArray(np.arange(windows.sizes["member"]), dims="member")
    size = xr.full_like(windows["rate_error"], float(window))
    units = windows.assign(size=size, source=number + 0 * size.astype(int))
    return units.stack(unit=("member", "window"), create_index=False).transpose("unit", ...)


def as_reference(windows: xr.Dataset) -> xr.Dataset:
    """Return the means of each member, as `solver_members` returns them, (unit, ...)."""
    means = windows.mean("window").rename(member="unit")
    count = means.sizes["unit"]
    return means.assign(size=("unit", np.ones(count)), source=("unit", np.arange(count)))


def profiles(windows: xr.Dataset, first_number: int) -> Profiles:
    values = windows["zonal_profile"].mean("window").transpose("member", "layer", "y").values
    return Profiles(values, np.ones(len(values)), first_number + np.arange(len(values)))


def coverage(ensemble: xr.Dataset, members: int, steps: int, window: int, shells, draws: int) -> pd.Series:
    """Return the share of draws whose interval holds the truth, by score, for runs of `steps` steps of `members` members."""
    windows, length = in_windows(ensemble, window), int(ensemble["block"][0])
    energy, rng = ensemble["kinetic_energy"].mean(("member", "step")).values, np.random.default_rng(steps)
    together = -(-2 * (ensemble.sizes["lag"] - 1) // length)
    total, count = windows.sizes["window"], steps // window
    others, of_reference = SIZES[steps][0], (SIZES[steps][1] or total * window) // window
    inside: dict[str, list[bool]] = {}

    def note(name: str, low: float, high: float, truth: float) -> None:
        inside.setdefault(name, []).append(low <= truth <= high)

    for _ in range(draws):
        order = rng.permutation(windows.sizes["member"])
        first, start = rng.integers(0, total - count + 1), rng.integers(0, total - of_reference + 1)
        mine = windows.isel(member=order[:members], window=slice(first, first + count))
        solver = windows.isel(member=order[members:][:others], window=slice(start, start + of_reference))
        run, reference = as_run(mine, window), as_reference(solver)
        for _, row in score_stretches(run, reference, shells).iterrows():
            ideal = SCORES[row["score"]][2]
            if ideal is not None and row["score"] not in UNKNOWN:
                note(row["score"], row["low"], row["high"], ideal)
        for name, (_, low, high) in mean_flow_scores(profiles(mine, 0), profiles(solver, members), energy).items():
            note(name, low[0], high[0], SCORES[name][2])
        part = ensemble["energy_spectrum"].isel(member=order[:members], layer=0)
        part = part.isel(block=slice(first * window // length, (first + 1) * window // length)).transpose(
            "member", "block", ...
        )
        spectra = [units[["energy_spectrum", "size"]].isel(layer=0) for units in (run, reference)]
        means, truth = (pooled(units, seed)["energy_spectrum"].values for seed, units in enumerate(spectra))
        sign = np.resize([1.0, -1.0], truth.shape[-1])
        for decades in DEPARTURES:
            factor = 10 ** (decades * sign)
            if decades:
                ends = distance_interval(log_ratio(means * factor, truth, shells))[1:]
                note(f"spectrum_error, {decades:g} put in", *ends, decades)
            ends = spectrum_error_interval(
                part.values * factor, spectra[1]["energy_spectrum"].values, shells, together
            )[1:]
            note(f"window_spectrum_error, {decades:g} put in", *ends, decades)
    return pd.Series({name: np.mean(values) for name, values in inside.items()})


def long_runs(ensemble: xr.Dataset, members: int, steps: int, window: int, shells, draws: int) -> pd.Series:
    """Return the coverage of five scores by many draws of long runs, from plain arrays: overlapping draws need many."""
    windows = in_windows(ensemble, window).isel(window=slice(steps // window))
    others, rng, inside = SIZES[steps][0], np.random.default_rng(0), {}
    mine, solver = (
        resampling_weights(np.ones(n), seed) for seed, n in enumerate((members * (steps // window), others))
    )
    mine, solver = (weights / weights.sum(1, keepdims=True) for weights in (mine, solver))
    names = ("kinetic_energy", "enstrophy", "rate_of_change", "energy_spectrum", "vorticity_counts")
    values = {
        n: windows[n].isel(layer=0, missing_dims="ignore").transpose("member", "window", ...).values for n in names
    }
    for _ in range(draws):
        order = rng.permutation(windows.sizes["member"])
        for name, array in values.items():
            array = array.reshape(*array.shape[:2], -1)
            run = mine @ array[order[:members]].reshape(len(mine[0]), -1)
            truth = solver @ array[order[members:][:others]].mean(1)
            if name == "energy_spectrum":
                ends, ideal = distance_interval(log_ratio(run, truth, shells)), 0.0
            elif name == "vorticity_counts":
                ends, ideal = distance_interval(cumulative_difference(run, truth)), 0.0
            else:
                ends, ideal = interval((run / truth)[:, 0], "ratio"), 1.0
            inside.setdefault(name, []).append(ends[1] <= ideal <= ends[2])
    return pd.Series({name: np.mean(held) for name, held in inside.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ensemble", type=Path, required=True)
    parser.add_argument("--settle", type=float, default=40.0, help="time units that are left out at the start")
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    members, window, shells = (
        config["rollout"]["members"],
        config["metrics"]["window"],
        tuple(config["metrics"]["shells"]),
    )
    ensemble = settled(xr.load_dataset(arguments.ensemble), arguments.settle)
    columns = {}
    for steps, (others, length) in SIZES.items():
        label = f"{steps} steps, reference of {others} x {length or ensemble.sizes['step']}"
        columns[label] = coverage(ensemble, members, steps, window, shells, arguments.draws)
        print(label, columns[label].to_string(), sep="\n", flush=True)
    table = pd.DataFrame(columns).rename_axis("score").reset_index()
    longest = max(SIZES)
    precise = (
        long_runs(ensemble, members, longest, window, shells, MANY).rename("covered").rename_axis("curve or series")
    )
    parts = [
        "# Coverage of the stated intervals of 90 %",
        f"Runs of {members} members of the demo's flow against references of other members; {ensemble.sizes['member']} members, "
        f"{ensemble.sizes['step']} steps from t = {arguments.settle:g} on; {arguments.draws} draws per column, which overlap. "
        f"{datetime.date.today()}, {platform.machine()}.",
        as_markdown(table), f"## {longest} steps, {MANY} draws", as_markdown(precise.reset_index()),
    ]  # fmt: skip
    output = ROOT / f"benchmarks/results/interval_coverage_{datetime.date.today()}_{platform.machine()}.md"
    output.write_text("\n\n".join(parts) + "\n")
    print(output.read_text())


if __name__ == "__main__":
    main()
