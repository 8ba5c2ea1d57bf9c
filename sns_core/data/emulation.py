"""The emulation of a system: the frames that emulators see, their unit and their time step, read from the data manifest.

Emulators work with frames divided by the standard deviation of the training split, channel by channel. `Emulation`
holds that scale and every other fact of the manifest that a method, a rollout or a metric needs.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sns_core.data.shards import read_manifest
from sns_core.grids import Grid
from sns_core.systems import System, build_system


@dataclass(frozen=True)
class Emulation:
    """A system as emulators see it.

    `system_name`, `system_parameters`: the solver; `resolution`: points per side of a frame, or [H, W]; `step`: time between
    frames, in the system's units; `statistics`: of the training split, one value per channel ("std", "increment_std",
    "shell_amplitude", ...); `identity`: checksum of the data set, which models trained on it carry; `splits`: shards of
    each split.
    """

    system_name: str
    system_parameters: dict
    resolution: Grid
    step: float
    statistics: dict
    identity: str
    splits: dict = field(default_factory=dict)

    @classmethod
    def from_manifest(cls, content: dict) -> "Emulation":
        """The emulation that the content of a manifest describes."""
        return cls(
            content["system"]["name"],
            content["system"]["parameters"],
            content["emulator"]["resolution"],
            content["emulator"]["step"],
            content["statistics"],
            content["identity"],
            content["splits"],
        )

    @classmethod
    def read(cls, manifest: Path) -> "Emulation":
        """Read a manifest file. Raises UserError where it is missing, DamagedFile where it is no whole manifest."""
        return cls.from_manifest(read_manifest(manifest))

    def build_system(self, device="cpu", dtype=torch.float32, **changes) -> System:
        """The solver on `device`; `changes` replace its parameters, for example `resolution` or `dt`."""
        return build_system(self.system_name, {**self.system_parameters, **changes}, dtype, device)

    def build_fastest_system(self, device="cpu", **changes) -> System:
        """The solver in its fastest form, as its costs are measured; `changes` replace its parameters."""
        return self.build_system(device, **{**dict(type(self.build_system()).fastest), **changes})

    def per_channel(self, name: str, device="cpu") -> torch.Tensor:
        """A statistic of the training split as (C, 1, 1) float32."""
        return torch.tensor(self.statistics[name], dtype=torch.float32, device=device)[:, None, None]

    def scale(self, device="cpu") -> torch.Tensor:
        """Standard deviation of each channel (C, 1, 1), the unit of frames."""
        return self.per_channel("std", device)
