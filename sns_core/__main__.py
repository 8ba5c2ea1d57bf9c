"""The command line: `python -m sns_core STAGE --argument value ...` runs one stage; `--help` explains it.

The arguments of a stage are those of its function (`arguments`). Commands such as `compare` are called in the same way, with
the folders of runs as their first words. Every stage also takes

    --threads N   threads of the numerical libraries     --log FILE    the messages on stderr
    --code NAME   the state of the code                  --dask JSON   where dask computes
    --files-below FOLDER   where the files lie that settings name, if not here
    --checkpoint-minutes N   of a training, at most      --loggers NAME   of a training
    --from-json JSON   several arguments at once, name -> value
    @FILE              more words from a file, quoted as in a shell; @- reads them from standard input

A mistake ends as one line on stderr (and in the log) with exit status 1. A record is written beside each result of a stage.
"""

import contextlib
import difflib
import gc
import importlib
import inspect
import os
import sys
import time
import traceback
from pathlib import Path

from sns_core.arguments import expand, read_arguments, split_common
from sns_core.stage_help import help_of_all, help_of_stage
from sns_core.stages import COMMANDS, STAGES

MODULES = STAGES | COMMANDS
# Packages that only some stages need -> the extra of this package that brings them.
EXTRAS = {
    "av": "movie", "distributed": "cluster", "dask_jobqueue": "cluster", "zarr": "zarr", "h5py": "well",
    "tensorboard": "loggers", "mlflow": "loggers", "wandb": "loggers",
}  # fmt: skip


@contextlib.contextmanager
def _stderr_to(path: Path | None):
    """Send stderr, also that of compiled libraries, into the file `path`. Yield the stderr from before, or stderr."""
    if path is None:
        yield sys.stderr
        return
    sys.stderr.flush()
    before = os.dup(2)
    with path.open("w") as handle, os.fdopen(before, "w") as terminal:
        os.dup2(handle.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)


def main(words: list[str]) -> int:
    """Run the stage that the words of the command line name, and return the exit status."""
    stage, *stage_words = words or [""]
    if stage in ("-h", "--help"):
        _show(help_of_all())
        return 0
    if stage not in MODULES:
        if stage:
            close = difflib.get_close_matches(stage, MODULES, 1, 0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            print(f"no stage or command is called {stage!r}{hint}", file=sys.stderr)
        print(
            "usage: python -m sns_core STAGE --argument value …; --help explains a stage\n"
            f"stages: {', '.join(STAGES)}\ncommands: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    if {"-h", "--help"} & set(stage_words):
        _show(help_of_stage(stage))
        return 0
    # Under torchrun, only the process of rank 0 writes the log at its path, and the records.
    rank = int(os.environ.get("RANK", 0))
    try:
        common, stage_words = split_common(expand(stage_words))
        _set_threads(common)
        log = Path(common["log"] + (f".{rank}" if rank else "")) if "log" in common else None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
    except (ValueError, OSError) as error:
        print(f"{stage}: {error}", file=sys.stderr)
        return 1
    with _stderr_to(log) as terminal:
        try:
            _run(stage, common, stage_words, log)
        except KeyboardInterrupt:
            print(f"{stage}: stopped from the keyboard", file=sys.stderr)
            return 130
        except Exception as error:
            line = f"{stage}: {_reason(error, stage)}"
            print(line, file=sys.stderr)
            if log is not None:
                print(line, file=terminal, flush=True)
            return 1
    return 0


def _set_threads(common: dict[str, str]) -> None:
    """Say the number of threads to the numerical libraries. Raise ValueError where it is no whole number of at least 1."""
    if "threads" not in common:
        return
    if not common["threads"].isdecimal() or int(common["threads"]) < 1:
        raise ValueError(f"--threads: {common['threads']!r} is no whole number of at least 1")
    # The processes of torchrun on one node share its cores. Torch and BLAS read the variable once, when they are loaded.
    common["threads"] = str(max(1, int(common["threads"]) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    os.environ["OMP_NUM_THREADS"] = common["threads"]


def _show(text: str) -> None:
    """Print a text. End quietly where the reader has closed the pipe, as `head` does after its last line."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes stdout at its end, which would raise the error a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: Exception, stage: str) -> str:
    """Return one line that explains an error. Print the traceback of an unexpected error.

    Damaged files are set aside, so that the next call makes them again. A command only reads: it moves no file of a run.
    """
    from sns_core.errors import DamagedFile, UserError
    from sns_core.files import set_aside

    line = " ".join(str(error).split())
    if isinstance(error, DamagedFile):
        if stage in COMMANDS:
            return f"{error.reason}; delete it, and the next `snakemake` makes it anew"
        return f"{error.reason}; {set_aside(error.paths)}"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"needs the package {error.name!r}, which is not installed: pip install 'sns-core[{EXTRAS[error.name]}]'"
    if not isinstance(error, UserError | ValueError | FloatingPointError | OSError):
        traceback.print_exc()
        return f"{type(error).__name__}: {line}"
    return line


def _run(stage: str, common: dict[str, str], stage_words: list[str], log: Path | None) -> None:
    """Import a stage, read its arguments, and run it. The process of rank 0 writes the record."""
    from sns_core.record import recorded

    function = getattr(importlib.import_module(MODULES[stage]), stage)
    _collect_again()
    for name in common:
        if name != "log" and name in inspect.signature(function).parameters:
            stage_words += [f"--{name}", common[name]]
    arguments = read_arguments(function, stage_words, common.get("files_below", ""))
    if stage in COMMANDS:
        _show(function(**arguments))
        return
    if int(os.environ.get("RANK", 0)):
        function(**arguments)
        return
    with recorded(function, arguments, common.get("code", ""), log, time.monotonic):
        function(**arguments)


def _collect_again() -> None:
    """Let Python collect cycles again after the imports, and leave what has been imported out of every collection.

    Modules live until the process ends. To search them while they are loaded, and once more at the end, takes 0.8 s of the 2.4 s
    of CPU time in which a stage with torch starts and ends (AMD EPYC, 29 November 2026).
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    gc.disable()  # until the stage has been imported
    sys.exit(main(sys.argv[1:]))
