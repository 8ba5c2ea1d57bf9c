"""The library's door: a finished run, or a folder of the gallery, as an emulator to call from Python.

    import sns_core
    emulator = sns_core.load("results/demo", method="sns")
    x0 = emulator.initial_state(members=4)
    rollout = emulator.rollout(x0, steps=1000, every=10, seed=0)

States and frames cross this door in physical units, as arrays (member, layer, y, x) on the grid of the frames.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.device import select_device
from sns_core.errors import UserError
from sns_core.files import read_json
from sns_core.methods.base import Hardware, Method
from sns_core.methods.build import build_method
from sns_core.methods.solver import Solver
from sns_core.rollout.engine import Observer, iterate, roll
from sns_core.streams import MemberStreams
from sns_core.systems import System

RUN, GALLERY = "provenance.json", "given.json"  # the file of a folder that lists its systems and their methods
AXES = ("member", "layer", "y", "x")


def load(
    path: str | Path,
    method: str = "sns",
    *,
    system: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> "Emulator":
    """Load an emulator from a finished run.

    `path`: folder of a run (`results/demo`) or of the gallery (`gallery/re1e4`); `method`: its name in the run's
    configuration; `system`: name of the system, needed where the run has several; `device`: auto, cpu, cuda or cuda:N;
    `precision`: auto, float32 or bfloat16, of the networks; `compile`: compile the networks, whose numbers are then the
    same to rounding.

    Raises UserError for a folder without a finished run, for an unknown method or system, and for a model that is
    missing or damaged.
    """
    folder = Path(path)
    systems = _systems_of(folder)
    if system is None and len(systems) > 1:
        raise UserError(f"{folder}: holds several systems; give system= one of {', '.join(systems)}")
    system = next(iter(systems)) if system is None else _pick(system, systems, f"{folder}: no system")
    methods = systems[system]
    spec = methods[_pick(method, methods, f"{folder}: no method")]
    if spec["kind"] == "external":
        raise UserError(f"{folder}: {method!r} is a rollout that was read from a file; it cannot be started again")
    return Emulator(folder / system, method, spec, Hardware(select_device(device), precision, compile))


def _systems_of(folder: Path) -> dict[str, dict]:
    """System -> method -> its resolved configuration, from the record of a run or of the gallery."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give the folder of a run, for example results/demo, or of the gallery"
        )
    listing = next((folder / name for name in (RUN, GALLERY) if (folder / name).exists()), None)
    if listing is None:
        raise UserError(
            f"{folder}: no finished run, neither {RUN} nor {GALLERY} is there; run `snakemake` to its end, or give the folder "
            "that holds one of them"
        )
    record = read_json(listing)
    described = record.get("provenance", record).get("systems", {})
    systems = {name: entry["methods"] for name, entry in described.items() if "methods" in entry}
    if not systems:
        raise UserError(f"{listing}: lists no methods, so it comes from an older version; run `snakemake` again")
    return systems


def _pick(name: str, names, reason: str) -> str:
    """The name itself where it is among `names`; UserError with the nearest one otherwise."""
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), names, 1, 0.5)
    raise UserError(f"{reason} {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"))


class Emulator:
    """One method of a run, ready to be rolled out.

    `method`: its name; `options`: its kind and options, as the run had them; `system`: the solver, a System;
    `step`: time between frames, in `time_units`; `units`: of the field; `grid`: (C, H, W) of a frame; `state_grid`: of the
    states that `rollout` starts from, equal to `grid` but for the solver itself, which starts on its own finer grid.
    """

    def __init__(self, folder: Path, method: str, spec: dict, hardware: Hardware):
        manifest = folder / "shards" / "manifest.json"
        self.folder, self.method, self.options, self._device = folder, method, spec, hardware.device
        self.emulation = Emulation.read(manifest)
        self.system: System = self.emulation.build_system(hardware.device)
        models = {role: folder / "models" / f"{model}.safetensors" for role, model in spec["models"].items()}
        self._scale = self.emulation.scale(hardware.device)
        self._method = build_method(
            spec,
            models,
            self.emulation,
            system=self.system,
            hardware=hardware,
            training_frames=lambda: true_frames(manifest, seed=0),
        )
        if hasattr(self._method, "frames"):
            # Here the states are frames already, in physical units.
            scaled = lambda frames: (frames / self._scale).contiguous()  # noqa: E731
            self._method.frames = dataclasses.replace(self._method.frames, observe=scaled)
        self.step, self.units, self.time_units = self.emulation.step, self.system.units, self.system.time_units
        points = self.emulation.resolution
        self.grid = (self.system.channels, points, points)
        solver = isinstance(self._method, Solver)
        self.state_grid = (self.system.channels, *[self.system.resolution] * 2) if solver else self.grid

    def __repr__(self) -> str:
        units = "" if self.time_units == "1" else f" {self.time_units}"
        return f"<Emulator {self.method} of {self.folder}: frames {self.grid}, step {self.step:g}{units}>"

    def initial_state(self, members: int = 1) -> np.ndarray:
        """States that the run kept: the last ones of its test trajectories, from which its own rollouts start.

        Returns (members, C, H, W) float32 on the `state_grid`, in physical units. Raises UserError where the run kept
        fewer members or none.
        """
        files = sorted((self.folder / "data").glob("test*.nc"))
        if not files:
            raise UserError(f"{self.folder / 'data'}: holds no test trajectories; give a state of your own")
        states = torch.from_numpy(open_members(files, "final_state")["final_state"].values).to(self._device)
        if not 1 <= members <= len(states):
            raise UserError(f"{self.folder}: keeps {len(states)} states, {members} were asked for")
        if self.state_grid == self.grid:
            states = self.system.observe(states, self.emulation.resolution)
        return states[:members].cpu().numpy()

    def rollout(self, x0, steps: int, *, every: int = 1, seed: int = 0) -> xr.Dataset:
        """Roll out from x0 and return the frames as an xarray.Dataset.

        `x0`: state in physical units, a numpy array, a torch tensor or a DataArray of the shape (C, H, W), (B, C, H, W), or
        (H, W) where there is one channel; `steps`: emulator steps; `every`: steps between the frames that are returned;
        `seed`: of the method's random numbers. The same seed gives the same bits as the run's own rollout of as many
        members from the same states.

        The dataset has the dimensions (member, time, layer, y, x), physical units and CF attributes; x0 is frame 0 (seen on
        the grid of the frames). `levels` (member, step, frame) are the noise levels at which each pair stood, -1 where none
        was examined; `calls` (member, step) are network calls of the walk. Raises UserError for an x0, a number of steps or an
        interval that does not fit.
        """
        if steps < 1 or every < 1 or steps % every:
            raise UserError(f"steps {steps} must be a positive multiple of every, {every}")
        carry, streams = self._start(x0, seed)
        frames, records = _Frames(self._method, carry, self._scale, every), _Records()
        roll(self._method, carry, streams, range(1, steps + 1), [frames, records])
        return self._dataset(np.stack(frames.stored, 1), records, steps, every, seed)

    def stream(self, x0, *, seed: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (time, frames) after each step, for ever; frames are (B, C, H, W) float32 in physical units.

        The arguments are those of `rollout`. Memory does not grow with the number of steps.
        """
        carry, streams = self._start(x0, seed)
        for step, (_, frame, _) in enumerate(iterate(self._method, carry, streams, itertools.count(1)), 1):
            yield step * self.step, (frame * self._scale).cpu().numpy()

    def _start(self, x0, seed: int):
        states = torch.from_numpy(self._states(x0)).to(self._device)
        streams = MemberStreams(seed, "rollout", self.method, members=range(len(states)), device=self._device)
        return self._method.start(states), streams

    def _states(self, x0) -> np.ndarray:
        """Check x0 and return it as (B, C, H, W) float32."""
        if isinstance(x0, xr.DataArray):
            x0 = self._values(x0)
        values = x0.detach().cpu().numpy() if isinstance(x0, torch.Tensor) else np.asarray(x0)
        if values.dtype.kind not in "fiu":
            raise UserError(f"x0: values of the type {values.dtype} are no real numbers")
        channels, height, width = self.state_grid
        if values.ndim == 2 and channels == 1:
            values = values[None]
        if values.ndim == 3:
            values = values[None]
        if values.ndim != 4 or values.shape[1:] != self.state_grid or not len(values):
            raise UserError(
                f"x0: shape {np.shape(x0)} does not fit; {self.method!r} takes ({channels}, {height}, {width}) or a batch "
                f"(B, {channels}, {height}, {width}) in {self.units}"
            )
        if not np.isfinite(values).all():
            raise UserError("x0: holds NaN or infinite values")
        return np.ascontiguousarray(values, dtype=np.float32)

    def _values(self, x0: xr.DataArray) -> np.ndarray:
        """Values of a DataArray with its axes in our order; UserError for other names, units or directions."""
        strange = [dim for dim in x0.dims if dim not in AXES]
        if strange or len(x0.dims) < 2:
            raise UserError(f"x0: has the dimensions {x0.dims}; name them {AXES} (rename with x0.rename)")
        units = x0.attrs.get("units", self.units)
        if units != self.units:
            raise UserError(f"x0: is in {units!r}, this emulator works in {self.units!r}; convert it first")
        for axis in ("y", "x"):
            if axis in x0.coords and x0.sizes[axis] > 1 and float(x0[axis][1]) < float(x0[axis][0]):
                raise UserError(f"x0: its coordinate {axis!r} descends; sort it first (x0.sortby({axis!r}))")
        return x0.transpose(*[axis for axis in AXES if axis in x0.dims]).values

    def _dataset(self, frames: np.ndarray, records: "_Records", steps: int, every: int, seed: int) -> xr.Dataset:
        system, points = self.system, self.emulation.resolution
        positions = np.arange(points) * system.length / points
        length = {"units": system.length_units}
        coordinates = {
            "member": (
                "member",
                np.arange(len(frames), dtype=np.int32),
                {"long_name": "member of the ensemble", "units": "1"},
            ),
            "time": (
                "time",
                np.arange(0, steps + 1, every) * self.step,
                {"long_name": "time since the initial state", "units": self.time_units},
            ),
            "layer": ("layer", list(system.layers), {"long_name": "layer of the flow"}),
            "y": ("y", positions, {"long_name": "distance along y", "axis": "Y", **length}),
            "x": ("x", positions, {"long_name": "distance along x", "axis": "X", **length}),
            "step": ("step", np.arange(1, steps + 1), {"long_name": "emulator step", "units": "1"}),
            "frame": ("frame", ["previous", "next"], {"long_name": "frame of the pair"}),
        }
        name = system.variable
        variables = {
            name: (
                ("member", "time", "layer", "y", "x"),
                frames,
                {"long_name": name.replace("_", " "), "units": self.units},
            ),
            "levels": (
                ("member", "step", "frame"),
                records.levels,
                {"long_name": "noise level of the frame, -1 where the pair was not examined", "units": "1"},
            ),
            "calls": (("member", "step"), records.calls, {"long_name": "network calls of the walk", "units": "1"}),
        }
        attributes = {
            "Conventions": "CF-1.10",
            "title": f"Rollout of {self.method} from {self.folder}",
            "source": f"{type(self._method).__name__} of sns_core, seed {seed}",
            "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} made by sns_core.Emulator.rollout",
        }
        return xr.Dataset(variables, coordinates, attributes)


class _Frames(Observer):
    """Keeps the initial frame and every `every`-th one in physical units, as numpy arrays."""

    def __init__(self, method: Method, carry, scale: torch.Tensor, every: int):
        self.scale, self.every = scale, every
        self.stored = [(method.frame(carry) * scale).cpu().numpy()]

    def after(self, step: int, frame: torch.Tensor, record) -> None:
        if step % self.every == 0:
            self.stored.append((frame * self.scale).cpu().numpy())


class _Records(Observer):
    """Keeps levels and calls of every step."""

    def __init__(self):
        self._levels, self._calls = [], []

    def after(self, step: int, frame, record) -> None:
        self._levels.append(record.levels.cpu().numpy())
        self._calls.append(record.calls.cpu().numpy())

    @property
    def levels(self) -> np.ndarray:
        """(member, step, 2)."""
        return np.stack(self._levels, 1).astype(np.int32)

    @property
    def calls(self) -> np.ndarray:
        """(member, step)."""
        return np.stack(self._calls, 1).astype(np.int32)
