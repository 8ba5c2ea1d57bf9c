"""From a configured method and model files to a method: the one place of the methods that knows files."""

from collections.abc import Callable
from pathlib import Path

import torch

from sns_core.data.emulation import Emulation
from sns_core.errors import DamagedFile, UserError
from sns_core.files import of_other_data, read_json
from sns_core.methods.base import FrameSpace, Hardware, Method, Parts
from sns_core.methods.calibration import Calibration
from sns_core.plugins import class_of, is_calibrated, load, needs_of, options_of
from sns_core.systems import System
from sns_core.training import load_models

CALIBRATION = "calibration"  # role of the file that `calibrate_refinement` makes
CALIBRATION_FORMAT = "sns-calibration-2"


def build_method(
    method: dict,
    models: dict[str, Path],
    emulation: Emulation,
    *,
    system: System | None = None,
    hardware: Hardware | None = None,
    training_frames: Callable[[], torch.Tensor] | None = None,
    frames: FrameSpace | None = None,
) -> Method:
    """Compose the method of a configuration.

    `method`: {"kind": a name of the catalogue or `module.Name` of a user's class, and options of its `build`}; keys that are
    no options (label, lengths) are ignored. `models`: file of each role that the method needs, and for a calibrated method
    its calibration under the role CALIBRATION (None: the method is built in order to be calibrated). `system`: the solver on
    the device (None: built here). `training_frames`: gives true frames (n, C, m, m), from which resampled anchors are drawn.
    `frames`: how states become frames (None: the system's own observation, divided by the standard deviations).

    Raises UserError for an unknown kind and for a model that is missing or does not fit.
    """
    hardware = hardware or Hardware()
    kind = method["kind"]
    try:
        needs = needs_of(kind)
    except ValueError as error:
        raise UserError(str(error)) from None
    if is_calibrated(kind) and CALIBRATION not in models:
        raise UserError(f"the method {kind!r} needs its calibration; `calibrate_refinement` makes it")
    user = f"the method {kind!r}"
    loaded = load_models(needs, models, user, hardware.device, emulation.identity, hardware.compile)
    system = system or emulation.build_system(hardware.device)
    if frames is None:
        frames = FrameSpace.of_system(system, emulation.resolution, emulation.scale(hardware.device))
    calibration = None if models.get(CALIBRATION) is None else read_calibration(models[CALIBRATION], emulation)
    return compose_method(method, Parts(emulation, system, loaded, hardware, training_frames, frames, calibration))


def compose_method(method: dict, parts: Parts) -> Method:
    """Compose the method of a configuration from its parts, which hold its models and its calibration."""
    kind = method["kind"]
    return load(class_of(kind)).build(parts, **{name: method[name] for name in options_of(kind) if name in method})


def read_calibration(path: Path, emulation: Emulation) -> Calibration:
    """Read the file of `calibrate_refinement`. Raises DamagedFile for none or a part of one, UserError for other data."""
    content = read_json(path)
    if content.get("format") != CALIBRATION_FORMAT:
        raise DamagedFile(path, f"not a calibration of this project (its format is not {CALIBRATION_FORMAT!r})")
    if content.get("data") != emulation.identity:
        raise of_other_data(path, "measured", content.get("data"))
    try:
        return Calibration.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(path, f"no whole calibration ({error!r})") from None
