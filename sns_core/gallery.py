"""Use results that are there already: those of a gallery folder (`take_result`), and those of other runs of a sweep (`link_result`).

A run whose configuration names a gallery folder (`reuse`) copies its results and makes everything else: every rollout of a
model, its scores, the figures. `sns_core.collection` fills such folders.
"""

import json
import os
import shutil
from pathlib import Path

from sns_core.errors import UserError
from sns_core.files import read_json, read_tensors, sha256, whole_file


def check_model(path: Path, manifest: dict) -> None:
    """Raise UserError if a model file does not fit the data of a manifest; the message names the first difference."""
    _, note = read_tensors(path)
    expected = {
        "resolution": manifest["emulator"]["resolution"],
        "step": manifest["emulator"]["step"],
        "statistics": manifest["statistics"],
        "data": manifest["identity"],
    }
    for name, value in expected.items():
        if note.get(name) != value:
            model, data = (f"{json.dumps(each)[:60]}" for each in (note.get(name), value))
            raise UserError(f"{path}: does not fit the data; its {name} is {model}, that of the data is {data}")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file; the copy appears whole."""
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def take_result(*, listing: Path, name: str, output: Path) -> None:
    """Copy the file `name` of a gallery folder to `output`; `listing`: the folder's `given.json`.

    Raises UserError if the file is not listed, is missing, has another checksum than listed, or is a model that does
    not fit the data of the folder.
    """
    folder, files = Path(listing).parent, read_json(listing)["files"]
    if name not in files:
        raise UserError(f"{listing}: lists no {name}; leave it out, or collect the run again")
    source = folder / name
    if not source.exists():
        raise UserError(f"{source}: missing, though {listing} lists it; check it out again")
    if sha256(source) != files[name]["sha256"]:
        raise UserError(f"{source}: not the file that {listing} lists (its checksum differs); check it out again")
    if source.suffix == ".safetensors":
        check_model(source, read_json(folder / Path(name).parts[0] / "shards/manifest.json"))
    copy_whole(source, output)


def link_result(*, source: Path, output: Path) -> None:
    """Link to the result of another run of a sweep, and to the shards beside a manifest. No byte is copied.

    `source`: the result in the folder of the other run.
    """
    for path in [Path(source), *(Path(source).parent.glob("*.npy") if Path(source).name == "manifest.json" else ())]:
        link = Path(output).parent / path.name
        temporary = link.with_name(f".{link.name}.{os.getpid()}.part")
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(path, link.parent.resolve()))
        temporary.replace(link)
