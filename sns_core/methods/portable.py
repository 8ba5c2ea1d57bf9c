"""A method in one file: its networks, its calibration and the facts of its data, without the run that trained it.

The file is safetensors. Each network's tensors stand under its role ("surrogate/enter.weight"); the note holds the rest, the
card of the method among it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sns_core.data.emulation import Emulation
from sns_core.errors import DamagedFile, UserError
from sns_core.files import read_tensors, write_tensors
from sns_core.methods.base import FrameSpace, Hardware, Method, Parts
from sns_core.methods.build import compose_method
from sns_core.methods.calibration import Calibration
from sns_core.plugins import needs_of
from sns_core.systems import System
from sns_core.training import restore_model

FORMAT = "sns-method-1"
STATES = "initial_states"  # tensor of frames from which a rollout may start


@dataclass(frozen=True)
class PortableMethod:
    """A method with all that it needs.

    `name`, `options`: of the method in its run's configuration; `manifest`: facts of its data, as `Emulation.from_manifest`
    reads them; `models`: role -> (tensors, note) of a model file; `calibration`: content of the calibration, None for a method
    without one; `states`: frames (n, C, H, W) from which rollouts may start, in the system's units without `offset`, or None;
    `precision`: of the networks in its run; `card`: text in Markdown that describes the method; `path`: the file.
    """

    name: str
    options: dict
    manifest: dict
    models: dict[str, tuple[dict[str, torch.Tensor], dict]]
    calibration: dict | None
    precision: str
    card: str
    states: torch.Tensor | None = None
    path: Path = field(default=Path(), compare=False)

    def write(self, path: Path) -> None:
        """Write the method as a safetensors file."""
        tensors = {f"{role}/{name}": each for role, (part, _) in self.models.items() for name, each in part.items()}
        if self.states is not None:
            tensors[STATES] = self.states
        note = {
            "format": FORMAT,
            "models": {role: note for role, (_, note) in self.models.items()},
            **{
                name: getattr(self, name)
                for name in ("name", "options", "manifest", "calibration", "precision", "card")
            },
        }
        write_tensors(path, tensors, note)

    @classmethod
    def read(cls, path: Path) -> "PortableMethod":
        """Read a file that `write` wrote. Raises UserError for any other file, a missing and a damaged one."""
        if not Path(path).exists():
            raise UserError(f"{path}: missing; write it by python -m sns_core export RUN METHOD --output {path}")
        try:
            tensors, note = read_tensors(path)
        except DamagedFile as error:
            raise UserError(f"{error.reason}; export the method again") from None
        if note.get("format") != FORMAT:
            raise UserError(
                f"{path}: is no exported method (its format is not {FORMAT!r}); write one by python -m sns_core export"
            )
        states, models = tensors.pop(STATES, None), {role: ({}, part) for role, part in note["models"].items()}
        for name, tensor in tensors.items():
            role, _, rest = name.partition("/")
            models[role][0][rest] = tensor
        rest = {name: note[name] for name in ("name", "options", "manifest", "calibration", "precision", "card")}
        return cls(models=models, states=states, path=Path(path), **rest)

    def emulation(self) -> Emulation:
        """Return the emulation that the method belongs to."""
        return Emulation.from_manifest(self.manifest)

    def build(self, emulation: Emulation, system: System, hardware: Hardware, frames: FrameSpace) -> Method:
        """Compose the method. The arguments are those of `Parts`. Raises UserError where a model does not fit its use."""
        models = {
            role: restore_model(
                self.path, *self.models[role], objectives, hardware.device, emulation.identity, hardware.compile
            )
            for role, objectives in needs_of(self.options["kind"]).items()
        }
        calibration = None if self.calibration is None else Calibration.from_dict(self.calibration)
        parts = Parts(emulation, system, models, hardware, frames=frames, calibration=calibration)
        return compose_method(self.options, parts)
