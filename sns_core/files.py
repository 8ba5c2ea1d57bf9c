"""Files written whole or not at all, checksums, and the record of what made a result.

Tensors go into safetensors, everything else into JSON or netCDF4; nothing is ever pickled or unpickled.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sns_core.runtime import UserError


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
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


def write_json(path: Path, value) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """The JSON object in `path`; UserError with `remedy` where it is missing or no JSON object."""
    try:
        value = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; {remedy}")
    return value


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], note: dict) -> None:
    """Tensors and a JSON-able note in one safetensors file, so the two cannot fall apart."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"note": json.dumps(note, sort_keys=True)})


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and note that `write_tensors` wrote; UserError with `remedy` for any other file."""
    try:
        with safe_open(path, framework="pt") as handle:
            note = json.loads((handle.metadata() or {})["note"])
            return {name: handle.get_tensor(name) for name in handle.keys()}, note  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: truncated, or not a file of this project ({error}); {remedy}") from None


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
