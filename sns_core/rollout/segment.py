"""The engine: repeats any stepper, one segment of a rollout at a time.

A segment ends in a restart file with everything that the next one needs; random numbers are addressed by the step, so
k segments give bitwise what one gives. Frames are kept every `frame_stride` steps, statistics at every step.
"""

import time
from pathlib import Path

import numpy as np
import torch

from sns_core.data.trajectories import FrameWriter, open_frames
from sns_core.files import digest, provenance, read_json, read_tensors, whole_file, write_tensors
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.rollout.statistics import StreamingStatistics
from sns_core.rollout.steppers import build_stepper
from sns_core.runtime import MemberStreams, UserError, progress, select_device, use_threads
from sns_core.systems import build_system

FORMAT = "sns-restart-1"
FRAME_BATCH = 64  # frames held before they are written


def rollout_segment(
    *, name: str, method: dict, models: dict, manifest: Path, initial: Path, first_step: int, steps: int, members: list,
    seed: int, frame_stride: int, block: int, lags: int, output: Path, restart: Path, previous: Path | None = None,
    device: str = "auto", precision: str = "auto", threads: int = 1,
) -> None:  # fmt: skip
    """Roll a method out over steps first_step + 1 .. first_step + steps.

    `method`: stepper and its options; `models`: file of each role; `initial`: frames file whose final solver states
    of `members` are the start; `previous`: restart file of the segment before (needed unless first_step is 0);
    `block`: steps a statistics block, must divide first_step and steps. Writes `output` (netCDF4) and `restart`.
    """
    if first_step % block or steps % block:
        raise UserError(f"rollout: segments of {steps} steps from {first_step} do not divide into blocks of {block}")
    use_threads(threads)
    chosen = select_device(device)
    content = read_json(manifest, "run `snakemake data` again")
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32, chosen)
    step_size, resolution = content["emulator"]["step"], content["emulator"]["resolution"]
    stepper = build_stepper(method, models, system, content, chosen, precision)
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32, device=chosen)[:, None, None]
    statistics = StreamingStatistics(system, scale, step_size, block, lags)
    streams = MemberStreams(seed, "rollout", name, members=members, device=chosen)
    identity = digest([name, method, content["identity"], members, seed, block, lags])

    if first_step == 0:
        states = open_frames(initial, "final_state")["final_state"].sel(member=members).values
        carry = stepper.start(torch.from_numpy(np.ascontiguousarray(states)).to(chosen))
        statistics.begin(stepper.frame(carry))
    else:
        if previous is None:
            raise UserError(f"rollout of {name}: a segment from step {first_step} needs the restart file before it")
        tensors, note = read_tensors(previous, "delete it and run again")
        if note.get("format") != FORMAT or note["identity"] != identity or note["step"] != first_step:
            raise UserError(
                f"{previous}: not the restart file of this rollout at step {first_step}; delete it and run again"
            )
        statistics.restore(tensors, chosen)
        prefix = "carry."
        carry = {key.removeprefix(prefix): t.to(chosen) for key, t in tensors.items() if key.startswith(prefix)}

    began, stepping = time.monotonic(), 0.0
    attributes, frame_step = {"method": name, "dt": step_size}, step_size * frame_stride
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, system, members, resolution, attributes, frame_step) as writer,
    ):
        kept, index = [], (first_step + frame_stride) // frame_stride
        if first_step == 0:
            kept, index = [stepper.frame(carry)], 0

        def flush():
            nonlocal kept, index
            if kept:
                writer.append((torch.stack(kept, 1) * scale).cpu().numpy(), index)
                index, kept = index + len(kept), []

        for step in progress(first_step + steps, f"rollout of {name}", start=first_step):
            tick = time.perf_counter()
            carry, record = stepper.step(carry, streams.at(step + 1))
            frame = stepper.frame(carry)
            stepping += time.perf_counter() - tick
            statistics.add(frame, record, step + 1)
            if (step + 1) % frame_stride == 0:
                kept.append(frame)
            if len(kept) == FRAME_BATCH:
                flush()
        flush()
        _write_statistics(writer, statistics, system, resolution, first_step, steps, block, step_size)
        record = provenance(
            {"method": method, "rollout": {"first_step": first_step, "steps": steps, "members": members}}, seed, str(chosen),
            wall_seconds=time.monotonic() - began,
        )  # fmt: skip
        writer.annotate(provenance=record, first_step=first_step, steps=steps, seconds_stepping=stepping)
    saved = {f"carry.{key}": tensor for key, tensor in carry.items()} | statistics.carry()
    write_tensors(restart, saved, {"format": FORMAT, "identity": identity, "step": first_step + steps})


def _write_statistics(writer: FrameWriter, statistics, system, resolution, first_step, steps, block, step_size) -> None:
    series, blocks = statistics.collected()
    wavenumbers = shell_wavenumbers(resolution, system.length)
    sizes = {
        "step": steps, "block": steps // block, "wavenumber": len(wavenumbers), "lag": statistics.lags + 1, "frame": 2,
    }  # fmt: skip
    for name, size in sizes.items():
        writer.file.createDimension(name, size)
    writer.variable("step", ("step",), kind="i8")[:] = first_step + 1 + np.arange(steps)
    writer.variable("block", ("block",), kind="i8")[:] = first_step + block * (1 + np.arange(steps // block))
    writer.variable("wavenumber", ("wavenumber",), f"1/({system.length_units})", kind="f8")[:] = wavenumbers
    writer.variable("lag", ("lag",), system.time_units, kind="f8")[:] = np.arange(statistics.lags + 1) * step_size
    dimensions = {
        "kinetic_energy": ("member", "step", "layer"), "enstrophy": ("member", "step", "layer"),
        "levels": ("member", "step", "frame"), "energy_spectrum": ("member", "block", "layer", "wavenumber"),
        "correlation": ("member", "block", "lag"),
    }  # fmt: skip
    for name, values in {**series, **blocks}.items():
        kind = "i4" if values.dtype.kind == "i" else "f4"
        units = f"1/({system.time_units})" if name == "rate_of_change" else "1"
        writer.variable(name, dimensions.get(name, ("member", "step")), units, kind=kind)[:] = values
    writer.variable("lost_step", ("member",), kind="i8")[:] = statistics.lost_step.numpy()
