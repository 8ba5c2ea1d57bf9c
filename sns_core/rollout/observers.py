"""Observers that write a segment's file: statistics of every step, and every few steps the frame itself."""

import numpy as np
import torch

from sns_core.data.frames import FRAMES_PER_CHUNK, FrameWriter
from sns_core.device import copy_out
from sns_core.grids import Grid, grid_shape
from sns_core.metrics.distances import CENTRES
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.rollout.engine import Observer
from sns_core.rollout.statistics import SERIES, StreamingStatistics

FRAME_BATCH = FRAMES_PER_CHUNK  # frames in memory before they are written, so that a chunk of the file is touched once
CHUNK_STEPS = 1000  # steps of a series in a chunk of the file


class StoredFrames(Observer):
    """Writes every `stride`-th frame, in physical units (frames times `scale`), a batch at a time.

    While a batch is copied from the device, the method computes the next steps. `close` writes the last batch.
    """

    def __init__(self, writer: FrameWriter, scale: torch.Tensor, stride: int, first_step: int):
        self.writer, self.scale, self.stride = writer, scale, stride
        self.index = 0 if first_step == 0 else first_step // stride + 1
        self._batch: list[torch.Tensor] = []
        self._copying = None

    def store(self, frame: torch.Tensor) -> None:
        """Store a frame (B, C, m, m) of any step, for example the initial one."""
        self._batch.append(frame)
        if len(self._batch) == FRAME_BATCH:
            self._flush()

    def after(self, step: int, frame: torch.Tensor, record) -> None:
        if step % self.stride == 0:
            self.store(frame)

    def _flush(self) -> None:
        """Write the batch that has been copied, and start to copy the present one."""
        if self._copying is not None:
            frames = self._copying()
            self.writer.append(frames, self.index)
            self.index += frames.shape[1]
        self._copying = copy_out(torch.stack(self._batch, 1) * self.scale) if self._batch else None
        self._batch = []

    def close(self) -> None:
        """Write everything that is still in memory."""
        self._flush()
        self._flush()


class BlockStatistics(Observer):
    """Writes the statistics of each block of steps as soon as the block is complete."""

    def __init__(self, writer: FrameWriter, statistics: StreamingStatistics, first_step: int, resolution: Grid):
        self.writer, self.statistics, self.block = writer, statistics, statistics.block
        self.first_step, self.blocks_written = first_step, 0
        system, sizes = statistics.system, statistics.sizes(resolution)
        for name, size in {"step": None, "block": None, **sizes}.items():
            writer.file.createDimension(name, size)
        coordinates = {
            "wavenumber": shell_wavenumbers(resolution, system.length),
            "lag": np.arange(sizes["lag"]) * statistics.step_size,
            "bin": CENTRES,
        }
        for name, values in coordinates.items():
            writer.variable(name, (name,), kind="f8")[:] = values
        for name in ("step", "block"):
            writer.variable(name, (name,), kind="i8", chunks=(CHUNK_STEPS,))
        chunk_sizes = {
            "step": CHUNK_STEPS,
            "block": max(1, CHUNK_STEPS // self.block),
            "layer": system.channels,
            "y": grid_shape(resolution)[0],
            **sizes,
        }
        for name, dimensions in SERIES.items():
            kind = "i4" if name in ("levels", "calls") or name.endswith("_counts") else "f4"
            chunks = (1, *(chunk_sizes[d] for d in dimensions))
            writer.variable(name, ("member", *dimensions), chunks=chunks, kind=kind)
        for name, unit in statistics.component_scales.items():
            writer.variable(f"{name}_scale", ("layer",), kind="f8")[:] = unit.flatten().cpu().numpy()

    def after(self, step: int, frame: torch.Tensor, record) -> None:
        if (values := self.statistics.add(frame, record, step)) is not None:
            self._append(values)

    def _append(self, values: dict[str, np.ndarray]) -> None:
        parts = {
            "step": slice(self.blocks_written * self.block, (self.blocks_written + 1) * self.block),
            "block": slice(self.blocks_written, self.blocks_written + 1),
        }
        stop = self.first_step + (self.blocks_written + 1) * self.block
        self.writer.file["step"][parts["step"]] = np.arange(stop - self.block, stop) + 1
        self.writer.file["block"][parts["block"]] = stop
        for name, array in values.items():
            self.writer.file[name][:, parts[SERIES[name][0]]] = array
        self.blocks_written += 1
