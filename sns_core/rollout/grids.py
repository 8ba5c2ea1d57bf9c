"""The solver itself on other grids, as a surrogate of its own: fewer points, longer steps, and the errors that come of it.

A surrogate is worth its price only where the solver cannot be as accurate as cheaply. So the same ensembles of short
forecasts are run on coarser grids, from the same disturbed states in their spectral truncation, and a long run gives
their spectrum. On every grid the time step is the longest fraction of an emulator step with which nothing breaks.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.frames import open_members
from sns_core.files import read_json, whole_file
from sns_core.metrics.spectra import kinetic_energy_spectrum, shell_wavenumbers
from sns_core.rollout.ensemble import disturbed, forecast
from sns_core.rollout.steppers import SolverStepper
from sns_core.runtime import MemberStreams, progress, select_device, use_threads
from sns_core.systems import InstabilityError, System, build_system
from sns_core.systems.spectral import truncate

SETTLING = 5  # one part of so many of the long run is left out: a grid forgets the states of another
PARTS = 4  # of the rest, each a spectrum of its own


def regridded(states: torch.Tensor, resolution: int) -> torch.Tensor:
    """States (..., N, N) on a grid of `resolution` points a side: their spectral truncation, or the same waves on more points."""
    n, m = states.shape[-1], resolution
    if m <= n:
        return truncate(states, m)
    spectrum, half = torch.fft.rfft2(states, norm="forward"), n // 2
    wider = spectrum.new_zeros(*states.shape[:-2], m, m // 2 + 1)
    wider[..., :half, :half] = spectrum[..., :half, :half]
    wider[..., -half + 1 :, :half] = spectrum[..., -half + 1 :, :half]  # the Nyquist modes have no sign to keep
    return torch.fft.irfft2(wider, s=(m, m), norm="forward")


def on_grid(system: dict, resolution: int, dt: float, device) -> System:
    """The system of a manifest with other points and another time step, in single precision as rollouts are."""
    parameters = {**system["parameters"], "resolution": resolution, "dt": dt}
    return build_system(system["name"], parameters, torch.float32, device)


def longest_step(system: dict, resolution: int, step: float, device, run: Callable[[System], dict]) -> tuple[int, dict]:
    """The fewest time steps of `resolution` points in an emulator step with which `run` goes through, and what it gives.

    Twice as many as the configured time step would take, scaled to the grid, are the most that are tried; InstabilityError
    where these are too few.
    """
    own = system["parameters"]
    most = max(2, 2 * math.ceil(step / own["dt"] * resolution / own["resolution"] * (1 - 1e-9)))
    substeps = 1
    while True:
        flow = on_grid(system, resolution, step / substeps, device)
        try:
            return substeps, run(flow)
        except InstabilityError as error:
            if substeps >= most:
                raise
            wanted = substeps * error.cfl / flow.cfl_limit
            wanted = math.ceil(wanted) if math.isfinite(wanted) else substeps + 1
            substeps = min(most, max(substeps + 1, wanted))


def rollout_grids(
    *, manifest: Path, initial: list[Path], grids: list, finest: int, starts: int, members: int, leads: list,
    disturbance: float, rolled: int, steps: int, every: int, seed: int, output: Path, device: str = "auto", threads: int = 1,
) -> None:  # fmt: skip
    """Forecasts and spectra of the solver on other grids, as netCDF.

    `grids`: points a side; `starts`, `members`, `leads`, `disturbance`: of the ensembles, as for `rollout_ensemble`, made on grids
    of up to `finest` points; `rolled`, `steps`, `every`: members and steps of the long run, made on grids no finer than the
    solver's own, and steps between the frames that count. On still finer grids `rolled` members take one step, which shows
    the time step. `output` holds "substeps" (grid), "stable_steps" (grid): emulator steps that were run, "forecast" (grid,
    start, member, lead, layer, y, x) in standard deviations and "energy_spectrum" (grid, unit, layer, wavenumber); NaN
    where none was made.
    """
    use_threads(threads)
    chosen = select_device(device)
    content = read_json(manifest)
    solver, step = content["system"], content["emulator"]["step"]
    own, side = solver["parameters"]["resolution"], content["emulator"]["resolution"]
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32, device=chosen)[:, None, None]
    states = torch.from_numpy(open_members(initial, "final_state")["final_state"].values)
    around = torch.cat([disturbed(states, s, members + 1, disturbance, seed)[:members] for s in range(starts)]).to(
        chosen
    )
    streams = MemberStreams(seed, "grids", members=range(len(around)), device=chosen)  # of which a solver draws nothing
    leads, states, found = sorted(leads), states[:rolled].to(chosen), []

    def run(flow: System) -> dict:
        stepper, result = SolverStepper(flow, side, step, scale), {"stable_steps": 1}
        if flow.resolution <= finest:
            frames = forecast(stepper, regridded(around, flow.resolution), streams, leads)
            result |= {"forecast": frames.reshape(starts, members, *frames.shape[1:]), "stable_steps": max(leads)}
        else:
            stepper.step(stepper.start(regridded(states, flow.resolution)), [])
        if flow.resolution <= own:
            result["energy_spectrum"] = _spectra(stepper, regridded(states, flow.resolution), steps, every)
        return result

    for index in progress(len(grids), "grids of the solver"):
        substeps, result = longest_step(solver, grids[index], step, chosen, run)
        found.append({"substeps": substeps, **result})

    def stacked(name: str) -> np.ndarray:
        shape = next((one[name].shape for one in found if name in one), None)
        empty = np.full(shape, np.nan, dtype=np.float32) if shape else None
        return np.stack([one.get(name, empty) for one in found]) if shape else None

    flow = build_system(solver["name"], solver["parameters"], torch.float32)
    kept = {name: ("grid", [one[name] for one in found]) for name in ("substeps", "stable_steps")}
    dimensions = {
        "forecast": ("grid", "start", "member", "lead", "layer", "y", "x"),
        "energy_spectrum": ("grid", "unit", "layer", "wavenumber"),
    }
    kept |= {name: (dims, values) for name, dims in dimensions.items() if (values := stacked(name)) is not None}
    coordinates = {"grid": list(grids), "lead": leads, "layer": list(flow.layers),
                   "wavenumber": shell_wavenumbers(side, flow.length)}  # fmt: skip
    attributes = {"step": step, "time_units": flow.time_units, "own": own}
    dataset = described(xr.Dataset(kept, coordinates, attributes), flow)
    with whole_file(output) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding={"layer": {"dtype": "S1"}})


def _spectra(stepper: SolverStepper, states: torch.Tensor, steps: int, every: int) -> np.ndarray:
    """Energy spectra (unit, layer, wavenumber) of a run of so many steps, a unit a member and part of the run."""
    flow, carry = stepper.system, stepper.start(states)
    settled = steps // SETTLING
    length = max(1, (steps - settled) // PARTS)
    sums = [0.0] * PARTS
    counts = [0] * PARTS
    for step in range(1, settled + PARTS * length + 1):
        carry, _ = stepper.step(carry, [])
        if step > settled and (step - settled) % min(every, length) == 0:
            u, v = flow.frame_velocity(stepper.frame(carry) * stepper.scale)
            layers = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], flow.length)[1] for c in range(flow.channels)]
            part = (step - settled - 1) // length
            sums[part], counts[part] = sums[part] + torch.stack(layers, 1), counts[part] + 1
    parts = [total / count for total, count in zip(sums, counts, strict=True)]
    return torch.cat(parts).cpu().numpy()
