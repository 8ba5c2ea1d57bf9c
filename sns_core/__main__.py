"""Command line: `python -m sns_core <stage> --argument value …`, one stage a call.

A stage is a function with keyword-only arguments; its annotations say how the words of the command line are read:
numbers, paths, true and false as such, lists as repeated words, dicts as JSON. Every stage also takes

    --threads N   of the numerical libraries     --log FILE   for stderr     --code NAME   the state of the code
    --dask JSON   who computes dask's graphs     --from-json JSON   several arguments at once, name -> value
    @FILE         more words from a file, quoted as in a shell; @- reads them from standard input

Mistakes end as one line on stderr (and in the log) and exit status 1. What a stage makes gets its record beside it.
"""

import contextlib
import importlib
import inspect
import json
import os
import shlex
import sys
import time
import traceback
import typing
from pathlib import Path

from sns_core.stages import STAGES

COMMON = ("threads", "log", "code", "dask")  # what no result depends on


def read_arguments(function, words: list[str]) -> dict:
    """Return keyword arguments for `function` from `--name value …` and `--from-json JSON`.

    A flag without a word, for anything but a list, leaves the argument at its default. Raises ValueError for unknown, missing
    or malformed arguments.
    """
    hints, signature = typing.get_type_hints(function), inspect.signature(function).parameters
    words_of: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            words_of[name] = []
        elif name is None:
            raise ValueError(f"{word!r} stands before any argument")
        else:
            words_of[name].append(word)
    mapping = json.loads(" ".join(words_of.pop("from_json", ["{}"])))
    for name in (*words_of, *mapping):
        if name not in signature:
            known = ", ".join(f"--{n.replace('_', '-')}" for n in signature)
            raise ValueError(f"unknown argument --{name.replace('_', '-')}; known: {known}")
    arguments = {name: _convert_json(name, value, hints[name]) for name, value in mapping.items()}
    for name, values in words_of.items():
        if values or typing.get_origin(hints[name]) is list:
            arguments[name] = _convert(name, values, hints[name])
    missing = [n for n, p in signature.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise ValueError(f"missing argument --{missing[0].replace('_', '-')}")
    return arguments


def _convert_json(name: str, value, hint):
    """Convert a value of JSON as `hint` says; ValueError where it is of another kind."""
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return None if value is None else _convert_json(name, value, next(k for k in arguments if k is not type(None)))
    origin = typing.get_origin(hint) or hint
    if origin is Path and isinstance(value, str):
        return Path(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise ValueError(f"--{name.replace('_', '-')}: {json.dumps(value)[:80]} is no {origin.__name__}")
    if origin is list and arguments:
        return [_convert_json(name, item, arguments[0]) for item in value]
    if origin is dict and arguments:
        return {key: _convert_json(name, item, arguments[1]) for key, item in value.items()}
    return value


def expand(words: list[str]) -> list[str]:
    """Replace each word @FILE by the words in the file, and @- by those on standard input."""
    expanded = []
    for word in words:
        if word.startswith("@") and len(word) > 1:
            text = sys.stdin.read() if word == "@-" else Path(word[1:]).read_text()
            expanded += shlex.split(text)
        else:
            expanded.append(word)
    return expanded


def _convert(name: str, values: list[str], hint):
    origin = typing.get_origin(hint)
    if origin is list:
        return [_convert(name, [value], typing.get_args(hint)[0]) for value in values]
    if hint is list or hint is dict:
        return json.loads(" ".join(values))
    if len(values) != 1:
        raise ValueError(f"--{name} takes one value, not {len(values)}")
    if typing.get_args(hint):  # an optional value
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is bool:
        if values[0].lower() not in ("true", "false"):
            raise ValueError(f"--{name}: {values[0]!r} is neither true nor false")
        return values[0].lower() == "true"
    return hint(values[0]) if hint in (int, float, Path) else values[0]


def _common(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """What every stage may be given (COMMON), and the words that are the stage's own."""
    found, rest = {}, []
    waiting = iter(words)
    for word in waiting:
        if word.startswith("--") and word[2:] in COMMON:
            found[word[2:]] = next(waiting, "")
        else:
            rest.append(word)
    return found, rest


@contextlib.contextmanager
def _logged(path: Path | None):
    """Send stderr, that of compiled libraries too, into the file `path`; gives the stderr from before."""
    if path is None:
        yield sys.stderr
        return
    path.parent.mkdir(parents=True, exist_ok=True)
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
    if not words or words[0] not in STAGES:
        print(f"usage: python -m sns_core STAGE --argument value …\nstages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    stage, (common, own) = words[0], _common(expand(words[1:]))
    if "threads" in common:
        common["threads"] = str(max(1, int(common["threads"]) // int(os.environ.get("WORLD_SIZE", 1))))
        os.environ["OMP_NUM_THREADS"] = common["threads"]  # read once, when torch and BLAS are loaded
    rank = int(os.environ.get("RANK", 0))  # of the processes that torchrun starts, the first one keeps log and records
    log = Path(common["log"] + (f".{rank}" if rank else "")) if "log" in common else None
    with _logged(log) as terminal:
        try:
            _run(stage, common, own, log)
        except KeyboardInterrupt:
            print(f"{stage}: stopped from the keyboard", file=sys.stderr)
            return 130
        except Exception as error:
            from sns_core.errors import DamagedFile, UserError
            from sns_core.files import set_aside

            told = " ".join(str(error).split())
            if isinstance(error, DamagedFile):
                told = f"{error.reason}; {set_aside(error.paths)}"
            if not isinstance(error, UserError | ValueError | FloatingPointError | OSError):
                traceback.print_exc()
                told = f"{type(error).__name__}: {told}"
            reason = f"{stage}: {told}"
            print(reason, file=sys.stderr)
            if log is not None:
                print(reason, file=terminal, flush=True)
            return 1
    return 0


def _run(stage: str, common: dict[str, str], own: list[str], log: Path | None) -> None:
    from sns_core.record import recorded

    function = getattr(importlib.import_module(STAGES[stage]), stage)
    taken = inspect.signature(function).parameters
    for name in ("threads", "code", "dask"):
        own += [f"--{name}", common[name]] if name in common and name in taken else []
    arguments = read_arguments(function, own)
    if int(os.environ.get("RANK", 0)):
        function(**arguments)
        return
    with recorded(stage, arguments, common.get("code", ""), log, time.monotonic):
        function(**arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
