"""Short ensembles of forecasts, each started at one state, and the truth that they are held against.

The members of an ensemble, the same for every method, start from one state of the solver up to tiny disturbances that are
states of the flow themselves: a share of the difference of two others of its states. What differs beyond is each
method's own noise. The truth is the solver from one more such state: so the solver's own ensemble is as good as any
can be, and shows what the disturbances alone grow into.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.files import read_json, whole_file
from sns_core.rollout.steppers import SolverStepper, Stepper, build_stepper
from sns_core.runtime import MemberStreams, UserError, generator, progress, select_device, use_threads
from sns_core.systems import build_system


def disturbed(states: torch.Tensor, start: int, members: int, share: float, seed: int) -> torch.Tensor:
    """`members` states (members, C, n, n) around states[start], of states (all, C, n, n) that have nothing to do with each
    other: each with `share` / sqrt(2) of the difference of two of them, drawn at random, added."""
    drawn = []
    for member in range(members):
        stream = generator(seed, "disturbance", start, member)
        one, other = torch.randperm(len(states), generator=stream)[:2].tolist()
        drawn.append(states[start] + share / 2**0.5 * (states[one] - states[other]))
    return torch.stack(drawn)


def rollout_ensemble(
    *, name: str, method: dict, models: dict, manifest: Path, initial: list[Path], starts: int, members: int, leads: list,
    disturbance: float, seed: int, output: Path, device: str = "auto", precision: str = "auto", compile: bool = False,
    threads: int = 1,
) -> None:  # fmt: skip
    """Forecasts of a method from `starts` states, an ensemble of `members` from each, as netCDF.

    `initial`: trajectory files, one a group of members, whose final solver states are the first of the starts; `leads`:
    steps after which frames are kept; `disturbance`: share of a state's variability that sets the members' initial states
    apart. `output` holds "forecast" (start, member, lead, layer, y, x) in standard deviations of the training split and,
    where the method is the solver, "truth" without the dimension member.
    """
    use_threads(threads)
    chosen = select_device(device)
    content = read_json(manifest)
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32, chosen)
    stepper = build_stepper(
        method, models, system, content, chosen, precision, lambda: true_frames(manifest, seed), compile
    )
    states = torch.from_numpy(open_members(initial, "final_state")["final_state"].values)
    if not (1 <= starts <= len(states) and len(states) > 1):
        raise UserError(
            f"metrics.ensemble.starts: {starts} states of the {len(states)} in {initial[0].parent}; raise data.splits.test"
        )
    truth, leads = isinstance(stepper, SolverStepper), sorted(leads)
    forecasts = []
    for start in progress(starts, f"ensembles of {name}"):
        around = disturbed(states, start, members + 1, disturbance, seed)[: members + truth].to(
            chosen
        )  # the last is the truth
        streams = MemberStreams(seed, "ensemble", name, start, members=range(len(around)), device=chosen)
        forecasts.append(forecast(stepper, around, streams, leads))
    frames = np.stack(forecasts)
    dimensions = ("start", "member", "lead", "layer", "y", "x")
    kept = {"forecast": (dimensions, frames[:, :members])}
    if truth:
        kept["truth"] = ((*dimensions[:1], *dimensions[2:]), frames[:, members])
    coordinates = {"lead": leads, "layer": list(system.layers)}
    dataset = described(xr.Dataset(kept, coordinates, {"method": name, "disturbance": disturbance}), system)
    with whole_file(output) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding={"layer": {"dtype": "S1"}})


def forecast(stepper: Stepper, states: torch.Tensor, streams: MemberStreams, leads: list[int]) -> np.ndarray:
    """Frames (member, lead, C, m, m) after so many steps from such states."""
    carry, kept = stepper.start(states), []
    for step in range(1, max(leads) + 1):
        carry, _ = stepper.step(carry, streams.at(step))
        if step in leads:
            kept.append(stepper.frame(carry).cpu())
    return torch.stack(kept, 1).numpy()
