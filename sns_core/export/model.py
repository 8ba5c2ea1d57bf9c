"""A method as one file: with all that `sns_core.load` needs, or as a program of one step that torch runs alone."""

import json
from pathlib import Path

import numpy as np
import torch

from sns_core.errors import UserError
from sns_core.export.card import card_of
from sns_core.export.rollout import check_one_system
from sns_core.files import whole_file
from sns_core.library import Emulator, MethodOfRun, load
from sns_core.record import RUN, check_current, read_run, records_below

CARD, FACTS = "card.md", "facts.json"  # further files in a program


def _loaded(run: Path, method: str, system: str | None, precision: str | None = None) -> Emulator:
    """Return a method on the CPU. Raises the errors of `load`, and UserError where its scores are of earlier files."""
    if Path(run).is_dir():
        check_one_system(Path(run), read_run(run), system)
    emulator = load(run, method, system=system, device="cpu", precision=precision)
    if isinstance(emulator.origin, MethodOfRun):
        scores = f"{emulator.folder.name}/scorecard.csv"
        check_current(Path(run), read_run(run)["configuration"], records_below(run), [RUN, scores])
    return emulator


def write_method(run: Path, method: str, system: str | None, output: Path) -> str:
    """Write a method as a safetensors file with its card, and return a line about it. Arguments and errors are those of `export`."""
    emulator = _loaded(run, method, system)
    use = ["import sns_core", "", f'emulator = sns_core.load("{output.name}")']
    exported = emulator.portable(
        card_of(emulator, [*use, "flow = emulator.rollout(emulator.initial_state(members=2), steps=100)"])
    )
    exported.write(output)
    states = "no initial states" if exported.states is None else f"{len(exported.states)} initial states"
    return f"{', '.join(exported.models)} of {method!r}, {states} and its card"


def write_program(run: Path, method: str, system: str | None, output: Path) -> str:
    """Write one step of a method as a program of torch with its card, and return a line about it.

    The arguments and errors are those of `export`. The program takes (frame, start, noise), as `methods.program.OneStep` does,
    for any number of members.
    """
    emulator = _loaded(run, method, system, precision="float32")
    # A batch of one is a special case for torch.export, and so is one as large as another dimension of the graph.
    example = np.zeros((3, *emulator.grid), np.float32)
    frame = torch.from_numpy(example)
    members = {0: torch.export.Dim("members")}
    try:
        step = emulator.one_step(example)
        # Inputs that share memory in the example would be one input of the graph.
        arguments = (frame, frame.clone(), torch.zeros(len(frame), step.noise_numbers))
        # Strict: the graph is read from the code, where a traced len() would fix the number of members.
        with torch.no_grad():
            program = torch.export.export(step, arguments, dynamic_shapes=(members,) * 3, strict=True)
    except UserError:
        raise
    except Exception as error:  # torch has exceptions of many kinds
        raise UserError(
            f"{method!r}: a step is no single graph of torch ({str(error).splitlines()[0]}); export a surrogate or a calibrated refinement"
        ) from None
    facts = {
        "inputs": {"frame": list(emulator.grid), "start": list(emulator.grid), "noise": [step.noise_numbers]},
        "step": emulator.step,
        "time_units": emulator.time_units,
        "units": emulator.units,
    }
    use = [
        "import torch",
        "",
        f'step = torch.export.load("{output.name}").module()',
        f"frame = step(frame, start, torch.randn(len(frame), {step.noise_numbers}))  # again and again",
    ]
    further = {CARD: card_of(emulator, use), FACTS: json.dumps(facts, indent=1)}
    # With a path in place of a handle, torch would ask for the suffix .pt2.
    with whole_file(output) as temporary, temporary.open("wb") as handle:
        torch.export.save(program, handle, extra_files=further)
    shape = " x ".join(map(str, emulator.grid))
    return f"inputs frame and start ({shape}) and noise ({step.noise_numbers}), for any number of members, and its card"
