"""The engine: repeats any stepper, one segment of a rollout at a time.

A segment ends in a restart file with everything that the next one needs; random numbers are addressed by the step, so
k segments give bitwise what one gives. Frames are kept every `frame_stride` steps, statistics at every step.
"""

import time
from pathlib import Path

import numpy as np
import torch

from sns_core.data.frames import FRAMES_PER_CHUNK, FrameWriter, open_members
from sns_core.data.pairs import true_frames
from sns_core.files import digest, provenance, read_json, read_tensors, whole_file, write_tensors
from sns_core.metrics.distances import CENTRES
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.rollout.statistics import SERIES, StreamingStatistics
from sns_core.rollout.steppers import build_stepper
from sns_core.runtime import DamagedFile, MemberStreams, UserError, copy_out, progress, select_device, use_threads
from sns_core.systems import build_system

FORMAT = "sns-restart-1"
FRAME_BATCH = FRAMES_PER_CHUNK  # frames held before they are written: a chunk of the file is touched once
CHUNK_STEPS = 1000  # steps of a series in a chunk of the file


def rollout_segment(
    *, name: str, method: dict, models: dict, manifest: Path, initial: list[Path], first_step: int, steps: int, members: list,
    seed: int, frame_stride: int, block: int, lags: int, output: Path, restart: Path, previous: Path | None = None,
    device: str = "auto", precision: str = "auto", compile: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Roll a method out over steps first_step + 1 .. first_step + steps.

    `method`: stepper and its options; `models`: file of each role; `initial`: frames files of a split whose final solver
    states of `members` are the start; `previous`: restart file of the segment before (needed unless first_step is 0);
    `block`: steps a statistics block, must divide first_step and steps; `compile`: the networks, whose numbers are then the
    same to rounding. Writes `output` (netCDF4) and `restart`.
    """
    if first_step % block or steps % block:
        raise UserError(f"rollout: segments of {steps} steps from {first_step} do not divide into blocks of {block}")
    use_threads(threads)
    chosen = select_device(device)
    content = read_json(manifest)
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32, chosen)
    step_size, resolution = content["emulator"]["step"], content["emulator"]["resolution"]
    stepper = build_stepper(
        method, models, system, content, chosen, precision, lambda: true_frames(manifest, seed), compile
    )
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32, device=chosen)[:, None, None]
    everyone = open_members(initial, "final_state")["final_state"]
    units = component_scales(system, torch.from_numpy(everyone.values).to(chosen), resolution)
    statistics = StreamingStatistics(system, scale, units, step_size, block, lags)
    streams = MemberStreams(seed, "rollout", name, members=members, device=chosen)
    identity = digest([name, method, content["identity"], members, seed, block, lags])

    if first_step == 0:
        # All are seen at once, whichever are asked for: transforms of another batch differ in the last bit.
        rows = torch.from_numpy(np.searchsorted(everyone["member"].values, members)).to(chosen)
        states = torch.from_numpy(np.ascontiguousarray(everyone.values)).to(chosen)
        carry = {key: tensor[rows] for key, tensor in stepper.start(states).items()}
        statistics.begin(stepper.frame(carry))
    else:
        if previous is None:
            raise UserError(f"rollout of {name}: a segment from step {first_step} needs the restart file before it")
        tensors, note = read_tensors(previous)
        if note.get("format") != FORMAT or note["identity"] != identity or note["step"] != first_step:
            raise DamagedFile(previous, f"not the restart file of this rollout at step {first_step}")
        statistics.restore(tensors, chosen)
        prefix = "carry."
        carry = {key.removeprefix(prefix): t.to(chosen) for key, t in tensors.items() if key.startswith(prefix)}

    began, stepping = time.monotonic(), np.zeros(steps // block)
    attributes, frame_step = {"method": name, "dt": step_size}, step_size * frame_stride
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, system, members, resolution, attributes, frame_step) as writer,
    ):
        log = _Log(writer, statistics, first_step, resolution)
        kept = _Frames(writer, scale, 0 if first_step == 0 else first_step // frame_stride + 1)
        if first_step == 0:
            kept.add(stepper.frame(carry))
        for step in progress(first_step + steps, f"rollout of {name}", start=first_step):
            tick = time.perf_counter()
            carry, record = stepper.step(carry, streams.at(step + 1))
            frame = stepper.frame(carry)
            if chosen.type == "cuda" and (step + 1) % block == 0:
                torch.cuda.synchronize(chosen)  # a call returns before a GPU has done it
            stepping[(step - first_step) // block] += time.perf_counter() - tick
            if (reduced := statistics.add(frame, record, step + 1)) is not None:
                log.append(reduced)
            if (step + 1) % frame_stride == 0:
                kept.add(frame)
        kept.close()
        writer.variable("lost_step", ("member",), kind="i8")[:] = statistics.lost_step.numpy()
        record = provenance(
            {"method": method, "rollout": {"first_step": first_step, "steps": steps, "members": members}}, seed, str(chosen),
            wall_seconds=time.monotonic() - began,
        )  # fmt: skip
        # Wall time of the stepping alone, statistics and files left out; no number among the results, which it would set
        # apart from those of another call.
        seconds = stepping if stepper.timed else stepping * np.nan
        writer.annotate(provenance=record, first_step=first_step, steps=steps, seconds_of_blocks=seconds)
    saved = {f"carry.{key}": tensor for key, tensor in carry.items()} | statistics.carry()
    write_tensors(restart, saved, {"format": FORMAT, "identity": identity, "step": first_step + steps})


class _Frames:
    """Frames on their way to the file: a few are held, then copied out while the next ones are computed."""

    def __init__(self, writer: FrameWriter, scale: torch.Tensor, index: int):
        self.writer, self.scale, self.index = writer, scale, index
        self.held: list[torch.Tensor] = []
        self.leaving = None

    def add(self, frame: torch.Tensor) -> None:
        self.held.append(frame)
        if len(self.held) == FRAME_BATCH:
            self._leave()

    def _leave(self) -> None:
        """Write what has been copied, and start to copy what is held."""
        if self.leaving is not None:
            frames = self.leaving()
            self.writer.append(frames, self.index)
            self.index += frames.shape[1]
        self.leaving = copy_out(torch.stack(self.held, 1) * self.scale) if self.held else None
        self.held = []

    def close(self) -> None:
        self._leave()
        self._leave()


class _Log:
    """The statistics in the file of a segment: its variables grow by a block at a time."""

    def __init__(self, writer: FrameWriter, statistics: StreamingStatistics, first_step: int, resolution: int):
        self.writer, self.block, self.first_step, self.done = writer, statistics.block, first_step, 0
        system, sizes = statistics.system, statistics.sizes(resolution)
        for name, size in {"step": None, "block": None, **sizes}.items():
            writer.file.createDimension(name, size)
        coordinates = {
            "wavenumber": (f"1/({system.length_units})", shell_wavenumbers(resolution, system.length)),
            "lag": (system.time_units, np.arange(sizes["lag"]) * statistics.step_size),
            "bin": ("standard deviations", CENTRES),
        }
        for name, (units, values) in coordinates.items():
            writer.variable(name, (name,), units, kind="f8")[:] = values
        for name in ("step", "block"):
            writer.variable(name, (name,), kind="i8", chunks=(CHUNK_STEPS,))
        held = {
            "step": CHUNK_STEPS,
            "block": max(1, CHUNK_STEPS // self.block),
            "layer": system.channels,
            "y": resolution,
            **sizes,
        }
        for name, dimensions in SERIES.items():
            units = f"1/({system.time_units})" if name == "rate_of_change" else "1"
            kind = "i4" if name in ("levels", "calls") or name.endswith("_counts") else "f4"
            chunks = (1, *(held[d] for d in dimensions))
            writer.variable(name, ("member", *dimensions), units, chunks, kind)
        for name, unit in statistics.component_scales.items():
            writer.variable(f"{name}_scale", ("layer",), kind="f8")[:] = unit.flatten().cpu().numpy()

    def append(self, reduced: dict[str, np.ndarray]) -> None:
        """Add the statistics of the next block."""
        parts = {
            "step": slice(self.done * self.block, (self.done + 1) * self.block),
            "block": slice(self.done, self.done + 1),
        }
        stop = self.first_step + (self.done + 1) * self.block
        self.writer.file["step"][parts["step"]] = np.arange(stop - self.block, stop) + 1
        self.writer.file["block"][parts["block"]] = stop
        for name, values in reduced.items():
            self.writer.file[name][:, parts[SERIES[name][0]]] = values
        self.done += 1
