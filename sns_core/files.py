"""Files that are written whole or not at all, held to their checksums before they are read, and the provenance of a result.

Tensors are stored as safetensors, everything else as JSON or netCDF4. Nothing is ever pickled or unpickled.
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
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from safetensors import SafetensorError, safe_open

from sns_core.errors import DamagedFile, UserError

if TYPE_CHECKING:
    # A job without tensors, such as a figure, starts twice as fast without torch.
    import torch

# The annotation of a stage's argument that is a dict with names of files among its values, at any depth. The record of
# the stage's results lists those that exist as inputs.
FileTree = Annotated[dict, "names of files among the values"]

# Bytes up to which a file is read to be compared with its record. A larger file with the size and the time in its record is
# taken for the same: the large files, trajectories and segments, hold checksums of their own.
READ_ALWAYS = 2**26


@functools.cache
def _umask() -> int:
    """Return the umask of this process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explained(error: Exception, path: Path) -> Exception:
    """Return a UserError where writing `path` failed for lack of space, and otherwise the error itself.

    HDF5 and safetensors report a full disk like any other failure, so their messages are searched for words.
    """
    full = shutil.disk_usage(path.parent).free < 2**16 or getattr(error, "errno", 0) in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
    )
    words_of_failure = ("HDF error", "NetCDF", "os error", "I/O error", "Input/output", " requested and ")
    if full or (any(words in str(error) for words in words_of_failure) and not isinstance(error, UserError)):
        reason = "no space is left there." if full else "is the disk full, or a quota reached?"
        return UserError(
            f"{path}: could not be written ({error}); {reason} Free some space, and run the same call again"
        )
    return error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` when the block ends well, and is removed otherwise.

    Raises UserError where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A call that was killed may have left its temporary file.
    for remnant in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        remnant.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
        except (RuntimeError, SafetensorError, OSError) as error:
            raise _explained(error, path) from None
        # Some libraries write files that only their owner may read.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary folder beside `path`, which takes its name when the block ends well.

    Raises UserError where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            raise _explained(error, path) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def record_path(result: Path) -> Path:
    """Return the path of the record of a result."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.json"


def file_entry(path: Path) -> dict:
    """Return the checksum, the size and the time of a file, as a record holds them."""
    status = path.stat()
    return {"sha256": sha256(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def recorded_entry(path: Path) -> dict | None:
    """Return what the record of a file holds of the file (see `file_entry`); None without a record of it."""
    try:
        entry = json.loads(record_path(path).read_text())["outputs"][path.name]
        return entry if {"sha256", "bytes", "modified_ns"} <= set(entry) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def checksum(path: Path, read_always: int = 0) -> str:
    """Return the sha256 of a file, from its record where the file still has the size and the time in the record.

    `read_always`: bytes up to which a file is read all the same.
    """
    entry, status = recorded_entry(path), path.stat()
    unchanged = entry and (entry["bytes"], entry["modified_ns"]) == (status.st_size, status.st_mtime_ns)
    return entry["sha256"] if unchanged and status.st_size > read_always else sha256(path)


def hold(paths: Iterable[Path]) -> None:
    """Raise DamagedFile, which names all of them, for files that are not what their records say.

    Files without a record are not compared: they come from elsewhere, or hold a checksum of their own. Nor are files that do
    not exist: who reads them says so.
    """
    entries = {path: recorded_entry(path) for path in map(Path, paths) if os.path.isfile(path)}
    altered = [path for path, entry in entries.items() if entry and checksum(path, READ_ALWAYS) != entry["sha256"]]
    if altered:
        others = f", and so are {', '.join(map(str, altered[1:4]))}" if len(altered) > 1 else ""
        reason = f"not what its job wrote (its checksum differs from its record, {record_path(altered[0])}){others}"
        raise DamagedFile(altered[0], reason, *altered[1:])


def digest(value) -> str:
    """Return a short name for a value that JSON can hold: the first 12 digits of its checksum."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def set_aside(paths: list[Path]) -> str:
    """Rename damaged files to `<name>.damaged`, so that the next call makes them again. Return words that say so."""
    existing = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another job that reads the file may have been faster
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            existing.append(path)
    if not existing:
        return "the same call again makes it anew"
    names = " and ".join(f"{path.name}.damaged" for path in existing)
    return f"set aside as {names}; the same call again makes it anew"


def missing(path: Path) -> UserError:
    """Return the error for a file that is missing."""
    return UserError(f"{path}: missing; run the stage that makes it (`snakemake --cores all -- {path}` does)")


def of_other_data(path: Path, made: str, identity) -> UserError:
    """Return the error for a whole file that was `made` ("trained", "measured") on data with another manifest identity.

    It may hold the only result of long work, so it is not damaged and stays where it is.
    """
    manifest, way_out = str(identity)[:12], f"`snakemake --cores all --forcerun {path}` makes it anew"
    return UserError(f"{path}: {made} on other data than this run's (manifest {manifest}); {way_out}")


def write_json(path: Path, value, sort_keys: bool = True) -> None:
    """Write a value that JSON can hold as an indented JSON file."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=sort_keys) + "\n")


def read_json(path: Path) -> dict:
    """Return the JSON object in a file.

    Raises UserError where the file is missing, and DamagedFile where it holds no JSON object.
    """
    try:
        value = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise missing(path) from None
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedFile(path, "holds no JSON object")
    return value


def _checksum(tensors: dict[str, "torch.Tensor"], note: str) -> str:
    """Return the checksum of tensors on the CPU and their note. It does not depend on the order of the tensors."""
    import torch

    total = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], note: dict) -> None:
    """Write tensors and their note into one safetensors file, with a checksum of both.

    `note`: a dict that JSON can hold. The file has a single metadata key, "sns". The library writes several keys in
    random order, and equal content must give equal files.
    """
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(note, sort_keys=True)
    header = json.dumps({"note": text, "sha256": _checksum(contiguous, text)}, sort_keys=True)
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"sns": header})


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict]:
    """Return the tensors and the note of a file that `write_tensors` wrote.

    Raises UserError where the file is missing or a folder, and DamagedFile for any other file, and for a file in which
    a bit has changed.
    """
    if Path(path).is_dir():
        raise UserError(f"{path}: is a folder; name the file")
    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            if "sns" in header:
                # Files of earlier versions have "note" and "sha256" as metadata keys of their own.
                header = json.loads(header["sns"])
            note = json.loads(header["note"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise missing(path) from None
    except PermissionError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(path, f"truncated, or not a file of this project ({error})") from None
    if header.get("sha256") != _checksum(tensors, header["note"]):
        raise DamagedFile(path, "altered since it was written (its checksum differs)")
    return tensors, note


@functools.cache
def code_state() -> dict:
    """Return the commit of the checkout that the package runs from, and whether tracked files have changed ("dirty").

    Outside a checkout, the commit is "unknown" and "dirty" is None.
    """
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
    """Return the provenance of a result: its slice of the configuration, seed, versions, commit, host and device.

    `more`: further entries.
    """
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "xarray", "dask", "netCDF4", "sns-core", "snakemake"):
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
