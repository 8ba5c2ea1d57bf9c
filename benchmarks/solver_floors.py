"""A large ensemble of the solver: when it becomes stationary, the floors of all scores, and how many fresh runs lie inside.

    python benchmarks/solver_floors.py [--configfile config/re1e4.yaml ...] [--system kolmogorov] [--members 80] [--time 212]
    python benchmarks/solver_floors.py --ensemble FILE.nc

Writes benchmarks/results/solver_floors_<date>_<machine>.md, and the statistics of the ensemble (no frames) to `--ensemble`. A later call
reads that file instead of simulating. 80 members of the demo's flow over 212 time units take about 6 minutes of a core.
"""

import argparse
import datetime
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml
from snakemake.utils import update_config

from sns_core.data.frames import steps_per_frame
from sns_core.methods.base import StepRecord
from sns_core.metrics.distances import CENTRES
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.floors import draw_runs, floor_bands, run_scores
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.metrics.stationarity import mser, stationary_from
from sns_core.rollout.statistics import SERIES, StreamingStatistics
from sns_core.streams import generator
from sns_core.systems import build_system

ROOT = Path(__file__).parents[1]


def simulate(settings: dict, rollout: dict, members: int, time: float) -> xr.Dataset:
    """Simulate an ensemble from random initial states, and return its statistics as `compute_metrics` reads them."""
    solver, emulator = dict(settings["solver"]), settings["emulator"]
    name = solver.pop("class")
    if name == "KolmogorovFlow":
        solver["advection"] = "stress"  # the faster form, equal within the filter
    flow = build_system(name, solver, torch.float32)
    resolution, step_size = emulator["resolution"], emulator["step"]
    substeps, block = steps_per_frame(step_size, flow.dt), rollout["block_steps"]
    steps = int(time / step_size) // block * block
    carry = flow.start(flow.initial_state(members, [generator(0, "floors", member) for member in range(members)]))
    # The initial states give no unit, so a short run gives the standard deviation and the units of the histograms.
    state = flow.state(flow.run(carry, 40 * substeps))
    scale = flow.observe(state, resolution).std((0, 2, 3))[:, None, None]
    units = component_scales(flow, state, resolution)
    statistics = StreamingStatistics(flow, scale, units, step_size, block, rollout["lags"])
    statistics.begin(flow.observe(flow.state(carry), resolution) / scale)
    record = StepRecord(levels=torch.full((members, 2), -1), calls=torch.zeros(members, dtype=torch.int64))
    parts = []
    for step in range(1, steps + 1):
        carry = flow.run(carry, substeps)
        frame = flow.observe(flow.state(carry), resolution) / scale
        if (reduced := statistics.add(frame, record, step)) is not None:
            parts.append(reduced)
            print(f"{step}/{steps}", end="\r", flush=True)
    series = {n: (("member", *axes), np.concatenate([part[n] for part in parts], 1)) for n, axes in SERIES.items()}
    series["lost_step"] = "member", statistics.lost_step.numpy()
    coordinates = {
        "member": np.arange(members), "step": np.arange(1, steps + 1), "block": np.arange(block, steps + 1, block),
        "lag": np.arange(rollout["lags"] + 1) * step_size,
        "bin": CENTRES, "layer": list(flow.layers), "wavenumber": shell_wavenumbers(resolution, flow.length),
    }  # fmt: skip
    return xr.Dataset(series, coordinates)


def settled(ensemble: xr.Dataset, time: float) -> xr.Dataset:
    """Return the ensemble from a time on, with steps counted anew."""
    size, block = float(ensemble["lag"][1]), int(ensemble["block"][0])
    first = -(-round(time / size) // block) * block
    later = ensemble.isel({name: np.flatnonzero(ensemble[name].values > first) for name in ("step", "block")})
    return later.assign_coords(step=later["step"] - first, block=later["block"] - first)


def starts(ensemble: xr.Dataset) -> pd.DataFrame:
    """Return the times after which energy, enstrophy and spectrum are stationary, by both detectors."""
    size, rows = float(ensemble["lag"][1]), []
    block = ensemble["block"].values
    spectrum = np.log10(ensemble["energy_spectrum"].isel(wavenumber=slice(1, 16))).mean("wavenumber")
    for name, series in {"kinetic_energy": None, "enstrophy": None, "log10 E": spectrum}.items():
        values = ensemble[name].coarsen(step=int(block[0])).mean().values if series is None else series.values
        for layer, label in enumerate(ensemble["layer"].values):
            of_layer = values[:, :, layer].astype(float)
            late = of_layer[:, -(len(block) // 3) :].mean()
            rows.append({
                "series": name, "layer": label, "stationary from": stationary_from(block * size, of_layer),
                "least error from": mser(block * size, of_layer.mean(0), batch=1), "late mean": late,
            })  # fmt: skip
    return pd.DataFrame(rows)


def floors(ensemble: xr.Dataset, members: int, window: int, shells: tuple[int, int], sizes: list[int]) -> pd.DataFrame:
    """Return the floors of runs of each number of steps that the ensemble holds."""
    rows = [
        floor_bands(ensemble, members, steps, window, shells).assign(steps=steps)
        for steps in sizes
        if steps <= ensemble.sizes["step"]
    ]
    return pd.concat(rows)


def held(ensemble: xr.Dataset, members: int, steps: int, window: int, shells: tuple[int, int]) -> pd.DataFrame:
    """Return the share of fresh runs inside the floor: runs of one half of the members, the floor from the other half."""
    count = ensemble.sizes["member"]
    first, second = np.arange(count // 2), np.arange(count // 2, count)
    latest = ensemble.sizes["block"] - steps // int(ensemble["block"][0])
    shares = []
    for left, right in ((first, second), (second, first)):
        floor = floor_bands(ensemble.isel(member=left), members, steps, window, shells).set_index("score")
        chosen, begins = draw_runs(right, members, latest, 200, seed=1)
        scores = run_scores(ensemble, chosen, begins, steps, window, shells, reference=left)
        inside = {
            n: ((v >= floor.loc[n, "low"]) & (v <= floor.loc[n, "high"])).mean().item() for n, v in scores.items()
        }
        shares.append(inside)
    table = pd.DataFrame(shares)
    return pd.DataFrame({"share inside": table.mean(), "least of two": table.min()}).rename_axis("score").reset_index()


def as_markdown(table: pd.DataFrame) -> str:
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in table.itertuples(index=False)]
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns), *cells]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays of config/config.yaml")
    parser.add_argument("--system", default="kolmogorov")
    parser.add_argument("--members", type=int, default=80)
    parser.add_argument("--time", type=float, default=212.0, help="time units from the initial state on")
    parser.add_argument("--settle", type=float, default=40.0, help="time units that the floors leave out")
    parser.add_argument(
        "--ensemble", type=Path, help="statistics of the ensemble: read if the file exists, else written"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for overlay in arguments.configfile:
        update_config(config, yaml.safe_load(overlay.read_text()))
    settings, rollout, metrics = config["systems"][arguments.system], config["rollout"], config["metrics"]
    if arguments.ensemble and arguments.ensemble.exists():
        ensemble = xr.load_dataset(arguments.ensemble)
    else:
        ensemble = simulate(settings, rollout, arguments.members, arguments.time)
        if arguments.ensemble:
            ensemble.to_netcdf(arguments.ensemble)
    size, window, shells = float(ensemble["lag"][1]), metrics["window"], tuple(metrics["shells"])
    later = settled(ensemble, arguments.settle)
    table = floors(later, rollout["members"], window, shells, [500, 1000, 2000, 3000])
    rows = table.sort_values("steps", kind="stable")[["score", "layer", "steps", "low", "middle", "high"]]
    parts = [
        f"# Floors of the solver: {arguments.system}",
        f"{ensemble.sizes['member']} members from t = 0 to {ensemble.sizes['step'] * size:g}; floors from t = {arguments.settle:g} on, "
        f"runs of {rollout['members']} members, windows of {window} steps, quantiles 0.05, 0.5 and 0.95. {datetime.date.today()}, "
        f"{platform.machine()}.",
        "## Stationary from", as_markdown(starts(ensemble)), "## Floors", as_markdown(rows),
        "## Fresh runs inside the floor, 1000 steps",
        as_markdown(held(later, rollout["members"], 1000, window, shells)),
    ]  # fmt: skip
    output = ROOT / f"benchmarks/results/solver_floors_{datetime.date.today()}_{platform.machine()}.md"
    output.write_text("\n\n".join(parts) + "\n")
    print(output.read_text())


if __name__ == "__main__":
    main()
