"""Files written whole or not at all, checksums, and the record of what made a result.

Tensors go into safetensors, everything else into JSON or netCDF4; nothing is ever pickled or unpickled.
"""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from sns_core.errors import DamagedFile, UserError

if TYPE_CHECKING:  # a job that holds no tensors, as that of a figure, starts without torch in half the time
    import torch


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explained(error: Exception, path: Path) -> Exception:
    """What went wrong while `path` was being written: HDF5 and safetensors do not tell a full disk from other failures."""
    full = shutil.disk_usage(path.parent).free < 2**16 or getattr(error, "errno", 0) in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
    )
    told = ("HDF error", "NetCDF", "os error", "I/O error", "Input/output", " requested and ")
    if full or (any(words in str(error) for words in told) and not isinstance(error, UserError)):
        reason = "no space is left there." if full else "is the disk full, or a quota reached?"
        return UserError(
            f"{path}: could not be written ({error}); {reason} Free some space, and run the same call again"
        )
    return error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # by a call that was killed
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
        except (RuntimeError, SafetensorError, OSError) as error:
            raise _explained(error, path) from None
        temporary.chmod(0o666 & ~_umask())  # some writers leave files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value) -> str:
    """A short, stable name for a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def set_aside(paths: list[Path]) -> str:
    """Rename damaged files to `<name>.damaged`, so that the next call makes them anew; the words that say so."""
    there = [path for path in paths if path.exists()]
    for path in there:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
    named = " and ".join(f"{path.name}.damaged" for path in there)
    return f"set aside as {named}; the same call again makes it anew" if there else "the same call again makes it anew"


def missing(path: Path) -> UserError:
    return UserError(f"{path}: missing; run the stage that makes it (`snakemake` does)")


def write_json(path: Path, value, sort_keys: bool = True) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=sort_keys) + "\n")


def read_json(path: Path) -> dict:
    """The JSON object in `path`; UserError where it is missing, DamagedFile where it is no JSON object."""
    try:
        value = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise missing(path) from None
    except ValueError as error:
        raise DamagedFile(path, f"not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedFile(path, "holds no JSON object")
    return value


def _checksum(tensors: dict[str, "torch.Tensor"], note: str) -> str:
    """sha256 of tensors on the CPU and their note, whatever the order they were written in."""
    import torch

    total = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], note: dict) -> None:
    """Write tensors and a JSON-able note into one safetensors file, so that the two cannot fall apart, with a checksum of both.

    The file has one metadata key, "sns": the library writes several keys in random order, and equal content must give equal
    files.
    """
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(note, sort_keys=True)
    described = json.dumps({"note": text, "sha256": _checksum(contiguous, text)}, sort_keys=True)
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"sns": described})


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict]:
    """Tensors and note that `write_tensors` wrote; UserError where the file is missing, DamagedFile for any other file and
    for one in which a bit has changed."""
    try:
        with safe_open(path, framework="pt") as handle:
            written = handle.metadata() or {}
            if "sns" in written:  # files of earlier versions have the two keys of this mapping themselves
                written = json.loads(written["sns"])
            note = json.loads(written["note"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise missing(path) from None
    except PermissionError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile(path, f"truncated, or not a file of this project ({error})") from None
    if written.get("sha256") != _checksum(tensors, written["note"]):
        raise DamagedFile(path, "altered since it was written (its checksum differs)")
    return tensors, note


@functools.cache
def code_state() -> dict:
    """Commit and cleanliness of the checkout that the package runs from; `unknown` outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*words):
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": "unknown", "dirty": None}
    if commit.returncode:
        return {"commit": "unknown", "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(changed.stdout.strip())}


def provenance(configuration: dict, seed: int | None = None, device: str = "cpu", **more) -> dict:
    """What made a result: configuration slice, seed, versions, commit, host and device."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "xarray", "dask", "netCDF4", "sns-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "configuration": configuration,
        "seed": seed,
        "versions": versions,
        "code": code_state(),
        "host": {"name": platform.node(), "machine": platform.machine(), "cores": os.cpu_count()},
        "device": device,
        **more,
    }
