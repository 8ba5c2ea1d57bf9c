"""The library's door: a finished run, or a folder of the gallery, as an emulator to call from Python.

    import sns_core
    emulator = sns_core.load("results/demo", method="sns")
    x0 = emulator.initial_state(members=4)
    rollout = emulator.rollout(x0, steps=1000, every=10, seed=0)

States and frames cross this door in physical units, as arrays (member, layer, y, x) on the grid of the frames.
"""

import contextlib
import difflib
import itertools
import operator
from collections.abc import Callable, Iterator
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
from sns_core.evaluation.lyapunov import lyapunov_exponents, step_map
from sns_core.files import hold
from sns_core.grids import grid_shape
from sns_core.methods.base import FrameMethod, FrameSpace, Hardware
from sns_core.methods.build import CALIBRATION, build_method
from sns_core.methods.solver import Solver
from sns_core.plugins import is_calibrated
from sns_core.record import read_run
from sns_core.rollout.engine import Observer, iterate, roll
from sns_core.streams import MemberStreams, generator
from sns_core.systems import System

AXES = ("member", "layer", "y", "x")


def load(
    path: str | Path,
    method: str = "sns",
    *,
    system: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    threads: int = 1,
) -> "Emulator":
    """Load an emulator from a finished run.

    `path`: folder of a run (`results/demo`) or of the gallery (`gallery/re1e4`); `method`: its name in the run's
    configuration; `system`: name of the system, needed where the run has several; `device`: auto, cpu, cuda or cuda:N;
    `precision` of the networks: auto, float32 or bfloat16 (None: the run's own); `compile`: compile the networks, whose
    numbers are then the same to rounding; `threads`: of torch while the emulator computes on a CPU. One thread, the workflow's own
    number, gives the workflow's bits.

    Raises UserError for a folder without a finished run, for an unknown method or system, and for a model that is
    missing or damaged.
    """
    folder = Path(path)
    record = _record_of(folder)
    systems = {name: entry["methods"] for name, entry in record["systems"].items()}
    if system is None and len(systems) > 1:
        raise UserError(f"{folder}: holds several systems; give system= one of {', '.join(systems)}")
    system = next(iter(systems)) if system is None else _pick(system, systems, f"{folder}: no system")
    methods = systems[system]
    spec = methods[_pick(method, methods, f"{folder}: no method")]
    if spec["kind"] == "external":
        raise UserError(f"{folder}: {method!r} is a rollout that was read from a file; it cannot be started again")
    if precision is None:
        precision = record["configuration"].get("hardware", {}).get("precision", "auto")
    try:
        hardware = Hardware(select_device(str(device)), precision, compile)
    except RuntimeError as error:
        raise UserError(f"device: {device!r} is none of auto, cpu, cuda and cuda:N ({error})") from None
    return Emulator(folder / system, method, spec, hardware, int(record["seed"]), _whole(threads, "threads", 1))


def _record_of(folder: Path) -> dict:
    """The record of a run or of the gallery, with those systems whose methods it lists."""
    record = read_run(folder)
    systems = record.get("systems") or {}
    systems = {
        name: entry
        for name, entry in systems.items()
        if all("kind" in m for m in entry.get("methods", {"": {}}).values())
    }
    if not systems:
        raise UserError(
            f"{folder}: its record lists no methods, so it comes from an older version; run `snakemake` again"
        )
    return {**record, "systems": systems}


def _pick(name: str, names, reason: str) -> str:
    """The name itself where it is among `names`; UserError with the nearest one otherwise."""
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), names, 1, 0.5)
    raise UserError(f"{reason} {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"))


def _whole(value, name: str, least: int) -> int:
    """A whole number of at least `least`; UserError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_) or number < least:
        raise UserError(f"{name}: {value!r} is not a whole number of at least {least}")
    return number


class Emulator:
    """One method of a run, ready to be rolled out. `load` makes it.

    `method`: its name; `options`: its kind and options, as the run had them; `system`: the solver, a System;
    `step`: time between frames, in `time_units`; `units`: of the field; `grid`: (C, H, W) of a frame; `state_grid`: of the
    states that `rollout` starts from, equal to `grid` but for the solver itself, which starts on its own finer grid.
    """

    def __init__(self, folder: Path, method: str, spec: dict, hardware: Hardware, seed: int, threads: int):
        manifest = folder / "shards" / "manifest.json"
        self.folder, self.method, self.options = folder, method, spec
        files = self._model_files()
        self._device, self._threads = hardware.device, threads
        hold([manifest, *files.values()])
        self.emulation = Emulation.read(manifest)
        self.system: System = self.emulation.build_system(hardware.device)
        self._scale = self.emulation.scale(hardware.device)
        offset = self.system.offset
        self._offset = None if offset is None else torch.tensor(offset, device=hardware.device)[:, None, None]
        if spec.get("anchor_frame") == "resampled" and not list(manifest.parent.glob("train_*.npy")):
            raise UserError(
                f"{folder}: keeps no training frames, from which {method!r} draws its anchors; make the run first"
            )
        self._method = build_method(
            spec,
            files,
            self.emulation,
            system=self.system,
            hardware=hardware,
            training_frames=lambda: true_frames(manifest, seed),
            # Here the states are frames already, in physical units.
            frames=FrameSpace(self._scaled, self.system.admissible),
        )
        if not isinstance(self._method, FrameMethod | Solver):
            raise UserError(f"{spec['kind']}: derive it from sns_core.methods.FrameMethod to start it from frames")
        self.step, self.units, self.time_units = self.emulation.step, self.system.units, self.system.time_units
        self.grid = (self.system.channels, *grid_shape(self.emulation.resolution))
        solver = isinstance(self._method, Solver)
        self.state_grid = (self.system.channels, *grid_shape(self.system.resolution)) if solver else self.grid

    def _model_files(self) -> dict[str, Path]:
        """Role -> file of each model, and of the calibration of a method that has one."""
        files = {
            role: self.folder / "models" / f"{model}.safetensors" for role, model in self.options["models"].items()
        }
        if is_calibrated(self.options["kind"]):
            files[CALIBRATION] = self.folder / "calibrations" / f"{self.method}.json"
        return files

    def __repr__(self) -> str:
        units = "" if self.time_units == "1" else f" {self.time_units}"
        return f"<Emulator {self.method} of {self.folder}: frames {self.grid}, step {self.step:g}{units}>"

    def initial_state(self, members: int = 1) -> np.ndarray:
        """States that the run kept: the last ones of its test trajectories, from which its own rollouts start.

        Returns (members, C, H, W) float32 on the `state_grid`, in physical units. Raises UserError where the run kept
        fewer members or none.
        """
        members = _whole(members, "members", 1)
        files = sorted((self.folder / "data").glob("test*.nc"))
        if not files:
            raise UserError(f"{self.folder / 'data'}: holds no test trajectories; give a state of your own")
        states = torch.from_numpy(open_members(files, "final_state")["final_state"].values).to(self._device)
        if members > len(states):
            raise UserError(f"{self.folder}: keeps {len(states)} states, {members} were asked for")
        if self.state_grid == self.grid:
            with self._computing():
                states = self.system.observe(states, self.emulation.resolution)
        states = states[:members] if self._offset is None else states[:members] + self._offset
        return states.cpu().numpy()

    def _scaled(self, states: torch.Tensor) -> torch.Tensor:
        """Frames in standard deviations of frames (B, C, H, W) in physical units."""
        return ((states if self._offset is None else states - self._offset) / self._scale).contiguous()

    def _physical(self, frames: torch.Tensor) -> np.ndarray:
        """Frames (B, C, H, W) in physical units of frames in standard deviations."""
        values = frames * self._scale
        return (values if self._offset is None else values + self._offset).cpu().numpy()

    def rollout(self, x0, steps: int, *, every: int = 1, seed: int = 0) -> xr.Dataset:
        """Roll out from x0 and return the frames as an xarray.Dataset.

        `x0`: state in physical units, a numpy array, a torch tensor or a DataArray of the shape (C, H, W), (B, C, H, W), or
        (H, W) where there is one channel; `steps`: emulator steps; `every`: steps between the frames that are returned;
        `seed`: of the method's random numbers. On a CPU the same seed gives the same bits as the run's own rollout of as
        many members from the same states.

        The dataset has the dimensions (member, time, layer, y, x), physical units and CF attributes; x0 is frame 0, to
        rounding (for the solver, x0 on the grid of the frames). `levels` (member, step, frame) are the noise levels at which each pair
        stood, -1 where none was examined; `calls` (member, step) are network calls of the walk. Raises UserError for an x0, a
        number of steps, an interval or a seed that does not fit.
        """
        steps, every = _whole(steps, "steps", 1), _whole(every, "every", 1)
        if steps % every:
            raise UserError(f"steps {steps} must be a multiple of every, {every}")
        states, streams = self._states(x0), self._streams(x0, seed)
        with self._computing():
            carry = self._method.start(torch.from_numpy(states).to(self._device))
            first = self._physical(self._method.frame(carry))
            frames, records = _Frames(first, self._physical, every), _Records()
            roll(self._method, carry, streams(len(states)), range(1, steps + 1), [frames, records])
        return self._dataset(np.stack(frames.stored, 1), records, steps, every, seed)

    def stream(self, x0, *, seed: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """Return an iterator of (time, frames) after each step, without end; frames are (B, C, H, W) float32 in physical
        units. The arguments are those of `rollout`. Memory does not grow with the number of steps."""
        states, streams = self._states(x0), self._streams(x0, seed)

        def endless() -> Iterator[tuple[float, np.ndarray]]:
            with self._computing():
                carry = self._method.start(torch.from_numpy(states).to(self._device))
            steps = iterate(self._method, carry, streams(len(states)), itertools.count(1))
            for step in itertools.count(1):
                with self._computing():
                    _, frame, _ = next(steps)
                yield step * self.step, self._physical(frame)

        return endless()

    def lyapunov_exponents(
        self, x0, count: int, steps: int, *, size: float = 1e-3, settling: int = 50, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `count` largest Lyapunov exponents, per unit of time, and their standard errors, each (count,).

        `x0`: one state, as `rollout` takes it, on the attractor; `steps`: emulator steps, after `settling` more. `size`: root
        mean square of the disturbances that are carried along, in standard deviations of the data. All disturbed states get
        the same random numbers. Raises UserError for the solver, which `benchmarks/lyapunov.py` measures, and for an x0 that
        does not fit.
        """
        if not isinstance(self._method, FrameMethod):
            raise UserError(f"{self.method}: its state is no frame; benchmarks/lyapunov.py measures solvers")
        state = torch.from_numpy(self._states(x0)[:1]).to(self._device)
        with self._computing():
            advance = step_map(self._method, state, _whole(seed, "seed", 0), self.method)
            disturbances = generator(seed, "lyapunov disturbances", self.method)
            exponents = lyapunov_exponents(
                advance, self._scaled(state)[0], count, steps, self.step, disturbances, size=size, settling=settling
            )
        return tuple(part.numpy() for part in exponents)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute with the emulator's number of threads, and leave torch as it was: sums over more threads round otherwise."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _streams(self, x0, seed):
        seed = _whole(seed, "seed", 0)
        return lambda members: MemberStreams(seed, "rollout", self.method, members=range(members), device=self._device)

    def _states(self, x0) -> np.ndarray:
        """Check x0 and return it as (B, C, H, W) float32."""
        values = self._values(x0)
        if values.dtype.kind not in "fiu":
            raise UserError(f"x0: values of the type {values.dtype} are no real numbers")
        channels, height, width = self.state_grid
        if values.ndim == 2 and channels == 1:
            values = values[None]
        if values.ndim == 3:
            values = values[None]
        if values.ndim != 4 or values.shape[1:] != self.state_grid or not len(values):
            units = "" if self.units == "1" else f", in {self.units}"
            raise UserError(
                f"x0: shape {values.shape} does not fit; {self.method!r} takes ({channels}, {height}, {width}) or a batch "
                f"(B, {channels}, {height}, {width}){units}"
            )
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, dtype=np.float32)
        if not np.isfinite(values).all():
            raise UserError("x0: holds NaN, infinite values, or values beyond single precision")
        return values

    def _values(self, x0) -> np.ndarray:
        """The values of x0, with the axes of a DataArray in our order."""
        if isinstance(x0, xr.Dataset):
            raise UserError(f"x0: is a Dataset; give one of its variables, for example x0[{next(iter(x0), '...')!r}]")
        if isinstance(x0, xr.DataArray):
            return self._values_by_name(x0)
        if isinstance(x0, torch.Tensor):
            x0 = x0.detach().cpu()
            return (x0.float() if x0.dtype == torch.bfloat16 else x0).numpy()
        if np.ma.is_masked(x0):
            raise UserError("x0: has masked values; fill them first (x0.filled(...))")
        try:
            return np.asarray(x0)
        except ValueError as error:
            raise UserError(f"x0: is no array ({error})") from None

    def _values_by_name(self, x0: xr.DataArray) -> np.ndarray:
        """Values (member, layer, y, x) of a DataArray; UserError for other names, units or directions of its axes."""
        names = ", ".join(AXES)
        if [dim for dim in x0.dims if dim not in AXES] or not {"y", "x"} <= set(x0.dims):
            raise UserError(f"x0: has the dimensions {', '.join(map(str, x0.dims))}; name them {names} (x0.rename)")
        units = x0.attrs.get("units", self.units)
        if units != self.units:
            raise UserError(f"x0: is in {units!r}, this emulator works in {self.units!r}; convert it first")
        for axis in ("y", "x"):
            if axis in x0.coords and x0.sizes[axis] > 1 and float(x0[axis][1]) < float(x0[axis][0]):
                raise UserError(f"x0: its coordinate {axis!r} descends; sort it first (x0.sortby({axis!r}))")
        return x0.expand_dims([axis for axis in AXES if axis not in x0.dims]).transpose(*AXES).values

    def _dataset(self, frames: np.ndarray, records: "_Records", steps: int, every: int, seed: int) -> xr.Dataset:
        system, (height, width) = self.system, self.grid[1:]
        y, x = (np.arange(points) * system.length / max(height, width) for points in (height, width))
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
            "y": ("y", y, {"long_name": "distance along y", "axis": "Y", **length}),
            "x": ("x", x, {"long_name": "distance along x", "axis": "X", **length}),
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
    """Keeps the first frame and every `every`-th one in physical units, as numpy arrays (B, C, H, W)."""

    def __init__(self, first: np.ndarray, physical: Callable[[torch.Tensor], np.ndarray], every: int):
        self.physical, self.every, self.stored = physical, every, [first]

    def after(self, step: int, frame: torch.Tensor, record) -> None:
        if step % self.every == 0:
            self.stored.append(self.physical(frame))


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
