"""The solver on other grids, as a surrogate of its own: fewer points, longer steps, and the errors that follow.

A surrogate is worth its price only where the solver cannot be as accurate as cheaply. So the same ensembles of short
forecasts are run on coarser grids, from the same disturbed states in their spectral truncation, and a long run gives
their spectrum. Frames are those of the same waves on the solver's own grid. On every grid the solver has its fastest
form, and the time step is the longest fraction of an emulator step with which the run stays stable.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_members
from sns_core.device import select_device, use_threads
from sns_core.evaluation.settling import PARTS, counted_steps, settled_and_length
from sns_core.grids import Grid, grid_shape, longer_side, with_longer_side
from sns_core.methods.solver import Solver
from sns_core.metrics.spectra import kinetic_energy_spectrum, shell_wavenumbers
from sns_core.progress import progress
from sns_core.rollout.engine import iterate
from sns_core.rollout.ensemble import disturbed, forecast
from sns_core.streams import MemberStreams
from sns_core.systems import InstabilityError, System
from sns_core.systems.spectral import truncate


def regridded(states: torch.Tensor, resolution: Grid) -> torch.Tensor:
    """Move states (..., H, W) to a grid of the same shape: truncate them, or draw the same waves on more points."""
    (height, width), (rows, columns) = states.shape[-2:], grid_shape(resolution)
    if columns <= width:
        return truncate(states, resolution)
    spectrum, half = torch.fft.rfft2(states, norm="forward"), width // 2
    wider = spectrum.new_zeros(*states.shape[:-2], rows, columns // 2 + 1)
    top = max(1, height // 2)
    wider[..., :top, :half] = spectrum[..., :top, :half]
    if height > 1:
        wider[..., -top + 1 :, :half] = spectrum[..., -top + 1 :, :half]  # the Nyquist modes have no sign to keep
    return torch.fft.irfft2(wider, s=(rows, columns), norm="forward")


class SolverOnGrid(Solver):
    """The solver on a grid of its own, seen as the emulated solver `emulated` is seen: its waves stand on that solver's
    grid when the frame is taken.

    A frame may depend on the grid beneath it. A mean over blocks of 2 x 2 points lies half a point beside them, and damps
    the smallest waves; frames of the same waves on two grids would otherwise differ by more than forecasts do.
    """

    def __init__(self, system: System, emulated: System, resolution: Grid, step: float, scale: torch.Tensor):
        super().__init__(system, resolution, step, scale)
        self.emulated = emulated

    def frame(self, carry) -> torch.Tensor:
        state = regridded(self.system.state(carry), self.emulated.resolution)
        return self.emulated.observe(state, self.resolution) / self.scale


def longest_step(emulation: Emulation, points: int, device, run: Callable[[System], dict]) -> tuple[int, dict]:
    """Find the longest time step with which `run` succeeds on a grid of `points` points along its longer side.

    Returns the number of time steps per emulator step, and what `run` returned. At most twice as many are tried as the
    configured time step would take, scaled to the grid. Raises InstabilityError where these are too few.
    """
    solver = emulation.system_parameters
    finer = points / longer_side(solver["resolution"])
    most = max(2, 2 * math.ceil(emulation.step / solver["dt"] * finer * (1 - 1e-9)))
    resolution = with_longer_side(solver["resolution"], points)
    substeps = 1
    while True:
        flow = emulation.build_fastest_system(device, resolution=resolution, dt=emulation.step / substeps)
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
    """Forecast with the solver on other grids, and compute its spectra there, as netCDF.

    `output` holds "substeps" (grid); "stable_steps" (grid), the emulator steps that were run; "forecast" (grid, start,
    member, lead, layer, y, x) in standard deviations; and "energy_spectrum" (grid, unit, layer, wavenumber). NaN stands
    where nothing was computed. On grids finer than the solver's own, `rolled` members take one step, which shows the
    time step.

    `grids`: points along the longer side of each grid.
    `finest`: points along the longer side of the finest grid on which ensembles are computed.
    `starts`: number of states from which ensembles start.
    `members`: number of members of each ensemble.
    `leads`: numbers of steps after which frames of ensembles are kept.
    `disturbance`: the standard deviation of the members' initial states, as a share of the variability of a state.
    `rolled`: number of members of the long run, on grids no finer than the solver's own.
    `steps`: number of emulator steps of the long run.
    `every`: steps between the frames that enter the spectra of the long run.
    """
    use_threads(threads)
    device, emulation = select_device(device), Emulation.read(manifest)
    configured, scale = longer_side(emulation.system_parameters["resolution"]), emulation.scale(device)
    emulated = emulation.build_system(device)
    states = torch.from_numpy(open_members(initial, "final_state")["final_state"].values)
    around = torch.cat([disturbed(states, s, members + 1, disturbance, seed)[:members] for s in range(starts)])
    around = around.to(device)
    streams = MemberStreams(seed, "grids", members=range(len(around)), device=device)  # a solver draws nothing
    leads, states = sorted(leads), states[:rolled].to(device)

    def run(flow: System) -> dict:
        """Return the results of one grid; on a grid too fine for forecasts or spectra, one step or no long run."""
        solver = SolverOnGrid(flow, emulated, emulation.resolution, emulation.step, scale)
        result = {"stable_steps": 1}
        if longer_side(flow.resolution) <= finest:
            frames = forecast(solver, regridded(around, flow.resolution), streams, leads)
            result |= {"forecast": frames.reshape(starts, members, *frames.shape[1:]), "stable_steps": max(leads)}
        else:
            solver.step(solver.start(regridded(states, flow.resolution)), [])
        if longer_side(flow.resolution) <= configured:
            result["energy_spectrum"] = _spectra(solver, regridded(states, flow.resolution), steps, every)
        return result

    results = []
    for index in progress(len(grids), "grids of the solver"):
        substeps, result = longest_step(emulation, grids[index], device, run)
        results.append({"substeps": substeps, **result})

    flow = emulation.build_system()
    dataset = _dataset(results, grids, leads, flow, emulation)
    dataset.attrs |= {"own": configured, "rolled": len(states), "counted_steps": counted_steps(steps)}
    title = f"{type(flow).__name__}: the solver on other grids"
    write_described(dataset, flow, output, title=title, stage="rollout_grids")


def _dataset(results: list[dict], grids: list[int], leads: list[int], flow: System, emulation: Emulation) -> xr.Dataset:
    """Return the results of all grids as one dataset, NaN where a grid has none.

    Without a variable that no grid has.
    """
    variables = {name: ("grid", [result[name] for result in results]) for name in ("substeps", "stable_steps")}
    dimensions = {
        "forecast": ("grid", "start", "member", "lead", "layer", "y", "x"),
        "energy_spectrum": ("grid", "unit", "layer", "wavenumber"),
    }
    for name, axes in dimensions.items():
        shape = next((result[name].shape for result in results if name in result), None)
        if shape is not None:
            empty = np.full(shape, np.nan, dtype=np.float32)
            variables[name] = axes, np.stack([result.get(name, empty) for result in results])
    coordinates = {
        "grid": list(grids),
        "lead": leads,
        "layer": list(flow.layers),
        "wavenumber": shell_wavenumbers(emulation.resolution, flow.length),
    }
    return xr.Dataset(variables, coordinates, {"step": emulation.step, "time_units": flow.time_units})


def _spectra(solver: Solver, states: torch.Tensor, steps: int, every: int) -> np.ndarray:
    """Return the energy spectra (unit, layer, wavenumber) of a run of `steps` steps from states (B, C, N, N).

    A unit is one of PARTS parts of the run of one member, after the steps in which the run settles.
    """
    flow, (settled, length) = solver.system, settled_and_length(steps)
    sums, counts = [0.0] * PARTS, [0] * PARTS
    numbers = range(1, settled + PARTS * length + 1)
    frames = iterate(solver, solver.start(states), MemberStreams(members=[]), numbers)
    for step, (_, frame, _) in zip(numbers, frames, strict=True):
        if step > settled and (step - settled) % min(every, length) == 0:
            u, v = flow.frame_velocity(frame * solver.scale)
            layers = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], flow.length)[1] for c in range(flow.channels)]
            part = (step - settled - 1) // length
            sums[part], counts[part] = sums[part] + torch.stack(layers, 1), counts[part] + 1
    parts = [total / count for total, count in zip(sums, counts, strict=True)]
    return torch.cat(parts).cpu().numpy()
