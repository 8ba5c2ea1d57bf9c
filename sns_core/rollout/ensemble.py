"""Short ensembles of forecasts, each started at one state, and the truth that they are compared with.

The members of an ensemble, the same for every method, start from one state of the solver plus tiny disturbances. The
disturbances are states of the flow themselves: a share of the difference of two other states of the solver. All further
difference between members is each method's own noise. The truth is the solver from one more such state. The solver's
own ensemble is therefore as good as any can be, and shows what the disturbances alone grow into.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.device import select_device, use_threads
from sns_core.errors import UserError
from sns_core.files import FileTree
from sns_core.methods.base import Hardware, Method
from sns_core.methods.build import build_method
from sns_core.methods.external import External
from sns_core.methods.solver import Solver
from sns_core.progress import progress
from sns_core.rollout.engine import iterate
from sns_core.streams import MemberStreams, generator
from sns_core.systems import System


def disturbed(states: torch.Tensor, start: int, members: int, share: float, seed: int) -> torch.Tensor:
    """Disturb one of several independent states.

    `states` (n, C, N, N). Returns (members, C, N, N): states[start] plus `share` / sqrt(2) times the difference of two
    states, drawn at random for each member.
    """
    disturbed_states = []
    for member in range(members):
        stream = generator(seed, "disturbance", start, member)
        left, right = torch.randperm(len(states), generator=stream)[:2].tolist()
        disturbed_states.append(states[start] + share / 2**0.5 * (states[left] - states[right]))
    return torch.stack(disturbed_states)


def rollout_ensemble(
    *, name: str, method: FileTree, models: FileTree, manifest: Path, initial: list[Path], starts: int, members: int, leads: list,
    disturbance: float, seed: int, output: Path, device: str = "auto", precision: str = "auto", compile: bool = False,
    threads: int = 1,
) -> None:  # fmt: skip
    """Forecast an ensemble from each of several states with a method, and write it as netCDF.

    `output` holds "forecast" (start, member, lead, layer, y, x) in standard deviations of the training split and, where
    the method is the solver, "truth" without the dimension member. A rollout that is read from files has no ensemble:
    its frames, as far as they reach, are the truth alone.

    `name`: the method's name in the configuration; its random numbers are addressed by it.
    `method`: the method's kind and options.
    `initial`: trajectory files of a split, whose first final solver states are the starts.
    `starts`: number of states from which forecasts start.
    `members`: number of members of each ensemble.
    `leads`: numbers of steps after which frames are kept.
    `disturbance`: the standard deviation of the members' initial states, as a share of the variability of a state.
    """
    use_threads(threads)
    hardware, emulation = Hardware(select_device(device), precision, compile), Emulation.read(manifest)
    system = emulation.build_system(hardware.device)
    composed = build_method(
        method, models, emulation, system=system, hardware=hardware, training_frames=lambda: true_frames(manifest, seed)
    )
    states = torch.from_numpy(open_members(initial, "final_state")["final_state"].values)
    if not (1 <= starts <= len(states) and len(states) > 1):
        raise UserError(
            f"metrics.ensemble.starts: {starts} states of the {len(states)} in {initial[0].parent}; raise data.splits.test"
        )
    truth, leads = isinstance(composed, Solver), sorted(leads)
    dimensions = ("start", "member", "lead", "layer", "y", "x")
    if isinstance(composed, External):
        leads = [lead for lead in leads if lead <= composed.rollout.last]
        streams = MemberStreams(seed, "ensemble", name, members=range(len(states)), device=hardware.device)
        recorded = forecast(composed, states.to(hardware.device), streams, leads)[:starts] if leads else None
        variables = {"truth": ((*dimensions[:1], *dimensions[2:]), recorded)} if leads else {}
        _write(variables, leads, system, name, disturbance, output)
        return
    forecasts = []
    for start in progress(starts, f"ensembles of {name}"):
        # The last one is the truth.
        around = disturbed(states, start, members + 1, disturbance, seed)[: members + truth].to(hardware.device)
        streams = MemberStreams(seed, "ensemble", name, start, members=range(len(around)), device=hardware.device)
        forecasts.append(forecast(composed, around, streams, leads))
    frames = np.stack(forecasts)
    variables = {"forecast": (dimensions, frames[:, :members])}
    if truth:
        variables["truth"] = ((*dimensions[:1], *dimensions[2:]), frames[:, members])
    _write(variables, leads, system, name, disturbance, output)


def _write(variables: dict, leads: list[int], system: System, name: str, disturbance: float, output: Path) -> None:
    """Write forecasts or their truth."""
    coordinates = {"lead": leads, "layer": list(system.layers)}
    dataset = xr.Dataset(variables, coordinates, {"method": name, "disturbance": disturbance})
    title = f"{type(system).__name__}: ensemble forecasts of {name}"
    write_described(dataset, system, output, title=title, stage="rollout_ensemble")


def forecast(method: Method, states: torch.Tensor, streams: MemberStreams, leads: list[int]) -> np.ndarray:
    """Frames (member, lead, C, m, m) of a method after each of the steps `leads` from states (member, C, N, N)."""
    steps = enumerate(iterate(method, method.start(states), streams, range(1, max(leads) + 1)), 1)
    return torch.stack([frame.cpu() for step, (_, frame, _) in steps if step in leads], 1).numpy()
