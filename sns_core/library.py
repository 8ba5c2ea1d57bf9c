"""The library's door: a finished run, a gallery folder or an exported method as an emulator to call from Python.

    import sns_core
    emulator = sns_core.load("results/demo", method="sns")
    x0 = emulator.initial_state(members=4)
    rollout = emulator.rollout(x0, steps=1000, every=10, seed=0)

States and frames cross this door in physical units, as arrays (member, layer, y, x) on the grid of the frames.
"""

import contextlib
import difflib
import itertools
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.coordinates import numbers_of
from sns_core.data.emulation import Emulation
from sns_core.data.fitting import placed
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.data.shards import read_manifest
from sns_core.device import precision_on, select_device
from sns_core.errors import UserError
from sns_core.evaluation.lyapunov import lyapunov_exponents, step_map
from sns_core.files import checksum, hold, read_json, read_tensors
from sns_core.grids import grid_shape
from sns_core.methods.base import FrameMethod, FrameSpace, Hardware, Method
from sns_core.methods.build import build_method
from sns_core.methods.calibration import CALIBRATION
from sns_core.methods.portable import PortableMethod
from sns_core.methods.program import OneStep
from sns_core.methods.solver import Solver
from sns_core.plugins import is_calibrated, is_own
from sns_core.plugins.definitions import lineage
from sns_core.record import read_run
from sns_core.rollout.engine import Observer, iterate, roll
from sns_core.streams import MemberStreams, generator
from sns_core.systems import System
from sns_core.units import conversion

AXES = ("member", "layer", "y", "x")
ROUNDING = 1e-5  # of frames in standard deviations
SMALLEST, LARGEST = 1e-5, 0.1  # disturbance, in standard deviations: single precision rounds smaller ones off


def load(
    path: str | Path,
    method: str | None = None,
    *,
    system: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    threads: int = 1,
) -> "Emulator":
    """Load an emulator from a finished run, or from the file of an exported method.

    `path`: folder of a run (`results/demo`), of the gallery (`gallery/re1e4`), or a file that `python -m sns_core
    export` wrote (`sns.safetensors`); `method`: its name in the run's configuration (None: sns, or the method of the
    file); `system`: name of the system, needed where the run has several; `device`: auto, cpu, cuda or cuda:N;
    `precision` of the networks: auto, float32 or bfloat16 (None: the run's own); `compile`: compile the networks, whose
    numbers are then the same to rounding; `threads`: of torch while the emulator computes on a CPU. One thread, the
    workflow's own number, gives the workflow's bits.

    Raises UserError for a folder without a finished run, for an unknown method or system, for a model that is missing or
    damaged, and for a class of the user's own whose file is not in the working directory.
    """
    threads = _whole(threads, "threads", 1)
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"path: {path!r} is no path; give the folder of a run, or the file of an exported method")
    if not isinstance(compile, bool):
        raise UserError(f"compile: {compile!r} is neither True nor False")
    path, exported = Path(path), Path(path).suffix == ".safetensors"
    origin = _exported(path, method, system) if exported else _method_of_run(path, method, system)
    _check_own_code(path, origin.options["kind"])
    return Emulator(origin, Hardware(select_device(str(device)), precision or origin.precision, compile), threads)


def _check_own_code(path: Path, name: str) -> None:
    """Raise UserError where the class of a method or a system is the user's own, and its file is not here."""
    try:
        if is_own(name):
            lineage(name)
    except ValueError as error:
        raise UserError(f"{path}: needs code of your own: {error}; call this in the folder with this file") from None


def _exported(path: Path, method: str | None, system: str | None) -> PortableMethod:
    """The method of a file. UserError where it has another name than `method`, and where a `system` is asked for."""
    exported = PortableMethod.read(path)
    if system is not None:
        raise UserError(
            f"{path}: holds one method, whose system has no name, so there is no {system!r}; leave system= out"
        )
    if method not in (None, exported.name):
        raise UserError(f"{path}: holds the method {exported.name!r}, not {method!r}; leave method= out")
    return exported


def _method_of_run(folder: Path, method: str | None, system: str | None) -> "MethodOfRun":
    """A method of a finished run (None: sns), by the names of its system and its own."""
    record, method = _record_of(folder), "sns" if method is None else method
    systems = {name: entry["methods"] for name, entry in record["systems"].items()}
    if system is None and len(systems) > 1:
        raise UserError(f"{folder}: holds several systems; give system= one of {', '.join(systems)}")
    system = next(iter(systems)) if system is None else _pick(system, systems, f"{folder}: no system")
    methods = systems[system]
    spec = methods[_pick(method, methods, f"{folder}: no method")]
    if spec["kind"] == "external":
        raise UserError(f"{folder}: {method!r} is a rollout that was read from a file; it cannot be started again")
    precision = record["configuration"].get("hardware", {}).get("precision", "auto")
    models = record["systems"][system].get("models", {})
    checksums = {model: models[model]["sha256"] for model in spec["models"].values() if model in models}
    return MethodOfRun(folder / system, method, spec, precision, int(record["seed"]), checksums)


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
    if isinstance(name, str) and name in names:
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


@dataclass(frozen=True)
class MethodOfRun:
    """A method whose models, calibration and states lie in the folder of a run's system.

    `path`: that folder; `name`, `options`: of the method in the run's configuration; `precision`: of its networks;
    `seed`: of the run; `checksums`: model -> sha256 of its file by the run's record.
    """

    path: Path
    name: str
    options: dict
    precision: str
    seed: int
    checksums: dict[str, str]
    card = ""

    @property
    def manifest_file(self) -> Path:
        """The data manifest."""
        return self.path / "shards" / "manifest.json"

    def files(self) -> dict[str, Path]:
        """Role -> file of each model, and of the calibration of a method that has one."""
        files = {role: self.path / "models" / f"{model}.safetensors" for role, model in self.options["models"].items()}
        if is_calibrated(self.options["kind"]):
            files[CALIBRATION] = self.path / "calibrations" / f"{self.name}.json"
        return files

    def emulation(self) -> Emulation:
        """Return the emulation of the data, after the checksums of all files have been compared.

        Raises UserError for a model that was trained again after the run had ended.
        """
        hold([self.manifest_file, *self.files().values()])
        for model, recorded in self.checksums.items():
            path = self.path / "models" / f"{model}.safetensors"
            if path.exists() and checksum(path) != recorded:
                raise UserError(
                    f"{path}: not the model that the run's record names, so the run is not finished; call `snakemake` for the "
                    "whole run again"
                )
        return Emulation.read(self.manifest_file)

    def build(self, emulation: Emulation, system: System, hardware: Hardware, frames: FrameSpace) -> Method:
        """Compose the method. The arguments are those of `build_method`."""
        if self.options.get("anchor_frame") == "resampled" and not list(self.manifest_file.parent.glob("train_*.npy")):
            raise UserError(
                f"{self.path}: keeps no training frames, from which {self.name!r} draws its anchors; make the run first"
            )
        return build_method(
            self.options,
            self.files(),
            emulation,
            system=system,
            hardware=hardware,
            training_frames=lambda: true_frames(self.manifest_file, self.seed),
            frames=frames,
        )

    @property
    def states(self) -> torch.Tensor:
        """The last solver states (n, C, N, N) of the test trajectories. Raises UserError where the run kept none."""
        files = sorted((self.path / "data").glob("test*.nc"))
        if not files:
            raise UserError(f"{self.path / 'data'}: holds no test trajectories; give a state of your own")
        return torch.from_numpy(open_members(files, "final_state")["final_state"].values)


class Emulator:
    """One method of a run, ready to be rolled out. `load` makes it.

    `method`: its name; `options`: its kind and options, as the run had them; `system`: the solver, a System; `step`:
    time between frames, in `time_units`; `units`: of the field; `grid`: (C, H, W) of a frame; `state_grid`: of the
    states that `rollout` starts from, equal to `grid` but for the solver itself, which starts on its own finer grid;
    `card`: text in Markdown that describes an exported method, "" for a method of a run.
    """

    def __init__(self, origin: MethodOfRun | PortableMethod, hardware: Hardware, threads: int):
        self.origin, self.folder, self.method = origin, origin.path, origin.name
        self.options, self.card = origin.options, origin.card
        self._device, self._precision, self._threads = hardware.device, hardware.precision, threads
        self.emulation = origin.emulation()
        _check_own_code(self.folder, self.emulation.system_name)
        self.system: System = self.emulation.build_system(hardware.device)
        self._scale = self.emulation.scale(hardware.device)
        offset = self.system.offset
        self._offset = None if offset is None else torch.tensor(offset, device=hardware.device)[:, None, None]
        # Here the states are frames already, in physical units.
        frames = FrameSpace(self._possible, self.system.admissible)
        self._method = origin.build(self.emulation, self.system, hardware, frames)
        if not isinstance(self._method, FrameMethod | Solver):
            kind = self.options["kind"]
            raise UserError(f"{kind}: derive it from sns_core.methods.FrameMethod to start it from frames")
        self.step, self.units, self.time_units = self.emulation.step, self.system.units, self.system.time_units
        self.grid = (self.system.channels, *grid_shape(self.emulation.resolution))
        solver = isinstance(self._method, Solver)
        self.state_grid = (self.system.channels, *grid_shape(self.system.resolution)) if solver else self.grid

    def __repr__(self) -> str:
        units = "" if self.time_units == "1" else f" {self.time_units}"
        return f"<Emulator {self.method} of {self.folder}: frames {self.grid}, step {self.step:g}{units}>"

    def initial_state(self, members: int = 1) -> np.ndarray:
        """States that the run kept: the last ones of its test trajectories, from which its own rollouts start.

        Returns (members, C, H, W) float32 on the `state_grid`, in physical units. Raises UserError where the run kept
        fewer members or none.
        """
        members, states = _whole(members, "members", 1), self._kept_states()
        if members > len(states):
            raise UserError(
                f"{self.folder}: keeps {len(states)} states, {members} were asked for; ask for fewer, or give states of your own"
            )
        states = states[:members] if self._offset is None else states[:members] + self._offset
        return states.cpu().numpy()

    def _kept_states(self) -> torch.Tensor:
        """All states (n, C, H, W) that the run kept, on the `state_grid`, without the offset."""
        states = self.origin.states
        if states is None:
            raise UserError(f"{self.folder}: keeps no states; give a state of your own")
        states = states.to(self._device)
        if self.state_grid == self.grid and isinstance(self.origin, MethodOfRun):
            with self._computing():
                states = self.system.observe(states, self.emulation.resolution)
        return states

    def _possible(self, states: torch.Tensor) -> torch.Tensor:
        """Return possible frames (B, C, H, W) in standard deviations for frames in physical units.

        What no frame of the system has, such as a mean that never changes, is taken out.

        A frame that has nothing of the kind but rounding keeps its bits, which are those of the workflow's rollouts.
        """
        frames = ((states if self._offset is None else states - self._offset) / self._scale).contiguous()
        possible = self.system.admissible(frames)
        differs = (frames - possible).abs().amax((1, 2, 3), keepdim=True) > ROUNDING
        return torch.where(differs, possible, frames)

    def _physical(self, frames: torch.Tensor) -> np.ndarray:
        """Frames (B, C, H, W) in physical units of frames in standard deviations."""
        values = frames * self._scale
        return (values if self._offset is None else values + self._offset).cpu().numpy()

    def rollout(self, x0, steps: int, *, every: int = 1, seed: int = 0) -> xr.Dataset:
        """Roll out from x0 and return the frames as an xarray.Dataset.

        `x0`: state in physical units, a numpy array, a torch tensor or a DataArray of the shape (C, H, W), (B, C, H,
        W), or (H, W) where there is one channel; `steps`: emulator steps; `every`: steps between the frames that are
        returned; `seed`: of the method's random numbers. On a CPU the same seed gives the same bits as the run's own
        rollout of as many members from the same states.

        The dataset has the dimensions (member, time, layer, y, x), physical units and CF attributes. Frame 0 is x0, to
        rounding and without parts that no frame of the system can have, such as a mean; the solver's is x0 on the grid
        of the frames. `levels` (member, step, frame) are the noise levels at which each pair stood, -1 where none was
        examined; `calls` (member, step) are network calls of the walk. Copies of one state give an ensemble, because
        each member draws noise of its own. Raises UserError for an x0, a number of steps, an interval or a seed that
        does not fit.
        """
        steps, every = _whole(steps, "steps", 1), _whole(every, "every", 1)
        if steps % every:
            raise UserError(f"steps {steps} must be a multiple of every, {every}")
        states, streams = self._states(x0), self._streams(seed)
        with self._computing():
            carry = self._method.start(torch.from_numpy(states).to(self._device))
            first = self._physical(self._method.frame(carry))
            frames, records = _Frames(first, self._physical, every), _Records()
            roll(self._method, carry, streams(len(states)), range(1, steps + 1), [frames, records])
        return self._dataset(np.stack(frames.stored, 1), records, steps, every, seed)

    def stream(self, x0, *, seed: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """Return an iterator of (time, frames) after each step, without end.

        `time` is in `time_units`, one step at first; frames are numpy float32 (B, C, H, W) in physical units. The
        arguments and their errors are those of `rollout`. Memory does not grow with the number of steps.
        """
        states, streams = self._states(x0), self._streams(seed)

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

        `x0`: one state, as `rollout` takes it, on the attractor; `steps`: emulator steps, after `settling` more.
        `size`: root mean square of the disturbances that are carried along, in standard deviations of the data, from
        1e-5 to 0.1. All disturbed states get the same random numbers. Load the emulator with precision="float32":
        bfloat16 rounds such disturbances off. Raises UserError for networks in bfloat16, for the solver, which
        `benchmarks/lyapunov.py` measures, for a method that carries more than a frame on, for numbers out of their
        range, and for an x0 that does not fit.
        """
        if not isinstance(self._method, FrameMethod):
            raise UserError(f"{self.method}: its state is no frame; benchmarks/lyapunov.py measures solvers")
        count, steps = _whole(count, "count", 1), _whole(steps, "steps", 2)  # the standard errors need two
        settling, directions = _whole(settling, "settling", 0), math.prod(self.grid)
        if count > directions:
            raise UserError(f"count: {count} exceeds the {directions} numbers of a frame, which has as many exponents")
        if isinstance(size, bool) or not (isinstance(size, numbers.Real) and 0 < size < math.inf):
            raise UserError(f"size: {size!r} is no positive number; take one small against 1, such as 1e-3")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(
                f"size: {size!r} is not from {SMALLEST:g} to {LARGEST:g}: smaller disturbances are rounded off, larger ones "
                "are not small; take one such as 1e-3"
            )
        if self.options["models"] and precision_on(self._device, self._precision) == "bfloat16":
            raise UserError(
                f"{self.method}: its networks compute in bfloat16, which rounds the disturbances off; load it with "
                'precision="float32"'
            )
        states = self._states(x0)
        if len(states) > 1:
            raise UserError(f"x0: holds {len(states)} states; give one of them, x0[:1]")
        state = torch.from_numpy(states).to(self._device)
        with self._computing():
            advance = step_map(self._method, state, _whole(seed, "seed", 0), self.method)
            disturbances = generator(seed, "lyapunov disturbances", self.method)
            exponents = lyapunov_exponents(
                advance, self._possible(state)[0], count, steps, self.step, disturbances, size=size, settling=settling
            )
        return tuple(part.numpy() for part in exponents)

    def one_step(self, example: np.ndarray) -> OneStep:
        """Return one step as a torch module of (frame, start, noise), all frames (B, C, H, W) in physical units.

        `example`: frames on which the step is tried. All inputs of the module must be on the emulator's device. Raises
        UserError for a method without networks, and the errors of `OneStep`.
        """
        if not isinstance(self._method, FrameMethod):
            raise UserError(f"{self.method!r} has no networks, so it is no program of torch; export another method")
        offset = torch.zeros_like(self._scale) if self._offset is None else self._offset
        return OneStep(self._method, self._scale, offset, torch.from_numpy(self._states(example)).to(self._device))

    def portable(self, card: str) -> PortableMethod:
        """Return the method with its models, calibration and states, to be written into one file with its `card`.

        Raises UserError for a method that needs more than these: the solver, or true frames as anchors.
        """
        if isinstance(self.origin, PortableMethod):
            return replace(self.origin, card=card)
        if not self.options["models"]:
            raise UserError(f"{self.method!r} has no networks; export another method")
        if self.options.get("anchor_frame") == "resampled":
            raise UserError(f"{self.method!r} draws its anchors from training frames, which no model file holds")
        states = None
        with contextlib.suppress(UserError):  # a folder of the gallery may keep none
            states = self._kept_states().cpu()
        models = self.origin.files()
        calibration = models.pop(CALIBRATION, None)
        return PortableMethod(
            name=self.method,
            options=self.options,
            manifest={**read_manifest(self.origin.manifest_file), "splits": {}},
            models={role: read_tensors(path) for role, path in models.items()},
            calibration=None if calibration is None else read_json(calibration),
            precision=self.origin.precision,
            card=card,
            states=states,
        )

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute with the emulator's number of threads, and leave torch as it was.

        Sums over another number of threads differ in the last bits.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _streams(self, seed) -> Callable[[int], MemberStreams]:
        """Check the seed, and return a function: number of members -> the random streams of a run's rollout."""
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
            values = np.array(
                values, dtype=np.float32, order="C"
            )  # a copy: a stream reads it after the caller may change x0
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
            return self._values_of_tensor(x0)
        if np.ma.is_masked(x0):
            raise UserError("x0: has masked values; fill them first (x0.filled(...))")
        try:
            return np.asarray(x0)
        except ValueError as error:
            raise UserError(f"x0: is no array ({error})") from None

    def _values_of_tensor(self, x0: torch.Tensor) -> np.ndarray:
        """The values of a tensor. UserError for one that holds none, or no plain numbers."""
        try:
            x0 = x0.detach().cpu().resolve_conj().resolve_neg()  # numpy has no such views
            return (x0.float() if x0.dtype == torch.bfloat16 else x0).numpy()
        except (TypeError, RuntimeError) as error:  # sparse, of 8 bits, quantized, on the device "meta"
            kind = f"{str(x0.layout).removeprefix('torch.')}, {str(x0.dtype).removeprefix('torch.')}, on {x0.device}"
            raise UserError(f"x0: a tensor ({kind}) is no array ({error}); give a dense one of float32") from None

    def _values_by_name(self, x0: xr.DataArray) -> np.ndarray:
        """Values (member, layer, y, x) of a DataArray, layers in the system's order, points from 0 on.

        Raises UserError for other names, units or directions of its axes, other layers, and points of another grid.
        """
        names = ", ".join(AXES)
        if "time" in x0.dims:  # frames of a rollout, for example
            raise UserError("x0: has the dimension time; choose one time, for example x0.isel(time=-1)")
        if [dim for dim in x0.dims if dim not in AXES] or not {"y", "x"} <= set(x0.dims):
            raise UserError(f"x0: has the dimensions {', '.join(map(str, x0.dims))}; name them {names} (x0.rename)")
        units = x0.attrs.get("units")
        if units not in (None, "") and conversion(str(units), self.units) != 1:  # without units: the emulator's
            raise UserError(f"x0: is in {units!r}, this emulator works in {self.units!r}; convert it first")
        for axis in ("y", "x"):
            if axis in x0.coords and (np.diff(numbers_of("x0", x0[axis])[:2]) < 0).any():
                raise UserError(f"x0: its coordinate {axis!r} descends; sort it first (x0.sortby({axis!r}))")
        x0 = x0.expand_dims([axis for axis in AXES if axis not in x0.dims]).transpose(*AXES)
        if x0.shape[1:] == self.state_grid:
            x0 = placed("x0", x0, tuple(self.system.layers), self.system.length, self.system.length_units)
        return x0.values

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
            "y": ("y", y, {"long_name": "distance along y", **length}),
            "x": ("x", x, {"long_name": "distance along x", **length}),
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
        dataset = xr.Dataset(variables, coordinates, attributes)
        for coordinate in ("time", "y", "x"):
            dataset[coordinate].encoding["_FillValue"] = None  # CF forbids coordinates to have one
        return dataset


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
