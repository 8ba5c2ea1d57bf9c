"""Command line: `python -m sns_core <stage> --argument value …`, one stage a call.

A stage is a function with keyword-only arguments; its annotations say how the words of the command line are read:
numbers and paths as such, lists as repeated words, dicts as JSON. Mistakes end as one line on stderr and exit status 1.
"""

import importlib
import inspect
import json
import sys
import typing
from pathlib import Path

from sns_core.stages import STAGES


def read_arguments(function, words: list[str]) -> dict:
    """Keyword arguments for `function` from `--name value …`; ValueError for unknown, missing or malformed ones."""
    hints, signature = typing.get_type_hints(function), inspect.signature(function).parameters
    given: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            if name not in signature:
                raise ValueError(f"unknown argument {word}; known: {', '.join('--' + n for n in signature)}")
            given[name] = []
        elif name is None:
            raise ValueError(f"{word!r} stands before any argument")
        else:
            given[name].append(word)
    missing = [n for n, p in signature.items() if p.default is p.empty and n not in given]
    if missing:
        raise ValueError(f"missing argument --{missing[0]}")
    return {name: _convert(name, values, hints[name]) for name, values in given.items()}


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
    return hint(values[0]) if hint in (int, float, Path) else values[0]


def main(words: list[str]) -> int:
    if not words or words[0] not in STAGES:
        print(f"usage: python -m sns_core STAGE --argument value …\nstages: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    from sns_core.runtime import UserError

    function = getattr(importlib.import_module(STAGES[words[0]]), words[0])
    try:
        function(**read_arguments(function, words[1:]))
    except (UserError, ValueError, FloatingPointError, OSError) as error:
        print(f"{words[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
