"""The words of the command line, read as the arguments of a stage.

A stage is a function with keyword-only arguments; a command may begin with positional ones. Annotations say how words
are read: numbers and paths, true and false, lists as repeated words, dicts as JSON.
"""

import inspect
import json
import os
import shlex
import sys
import typing
from pathlib import Path

# Arguments that any stage may get and that no result depends on.
COMMON = ("threads", "log", "code", "files_below", "dask", "checkpoint_minutes", "loggers")


def read_arguments(function, words: list[str], files_below: str = "") -> dict:
    """Return the arguments of `function`, by name, in the words `--name value ...` and `--from-json JSON`.

    `files_below`: a folder. Texts in JSON that name a file below it are replaced by the path of that file.
    Words before the first flag are the positional arguments of `function`, in order.
    A flag without a word leaves its argument at the default, unless the argument is a list. Raises ValueError for
    unknown, missing and malformed arguments.
    """
    hints, signature = typing.get_type_hints(function), inspect.signature(function).parameters
    by_name: dict[str, list[str]] = {}
    positional = (name for name, p in signature.items() if p.kind is p.POSITIONAL_OR_KEYWORD)
    name = None
    for word in words:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            if name in by_name:
                raise ValueError(f"{_flag(name)} stands twice; give all its values after one flag")
            by_name[name] = []
        elif name is None:
            place = next(positional, None)
            if place is None:
                raise ValueError(f"{word!r} stands before any argument")
            by_name[place] = [word]
        else:
            by_name[name].append(word)
    from_json = _json("from_json", by_name.pop("from_json", ["{}"]))
    if not isinstance(from_json, dict):
        raise ValueError(
            f'--from-json: {json.dumps(from_json)[:80]} gives no argument a value; write {{"name": value}}'
        )
    from_json = _with_files_below(files_below, from_json) if files_below else from_json
    for name in (*by_name, *from_json):
        if name not in signature:
            raise ValueError(f"unknown argument {_flag(name)}; known: {', '.join(map(_flag, signature))}")
    arguments = {name: _convert_json(name, value, hints[name]) for name, value in from_json.items()}
    for name, values in by_name.items():
        if values or typing.get_origin(hints[name]) is list:
            arguments[name] = _convert_words(name, values, hints[name])
    missing = [name for name, p in signature.items() if p.default is p.empty and name not in arguments]
    if missing:
        positional = signature[missing[0]].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        raise ValueError(f"missing argument {missing[0].upper() if positional else _flag(missing[0])}")
    return arguments


def _with_files_below(folder: str, value):
    """Return a copy of a value of JSON in which each text that names a file below a folder is the path of that file."""
    if isinstance(value, dict):
        return {key: _with_files_below(folder, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_files_below(folder, inner) for inner in value]
    return (
        os.path.join(folder, value) if isinstance(value, str) and os.path.isfile(os.path.join(folder, value)) else value
    )


def split_common(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of the COMMON arguments among the words, and the other words.

    Raises ValueError where such an argument stands twice or is followed by no value.
    """
    common, stage_words = {}, []
    remaining = iter(words)
    for word in remaining:
        name = word[2:].replace("-", "_")
        if word.startswith("--") and name in COMMON:
            if name in common:
                raise ValueError(f"{word} stands twice; give it once")
            common[name] = next(remaining, "--")
            if common[name].startswith("--"):
                raise ValueError(f"{word}: no value follows; give one, or leave {word} out")
        else:
            stage_words.append(word)
    return common, stage_words


def expand(words: list[str]) -> list[str]:
    """Replace each word @FILE by the words in the file, and @- by the words on standard input.

    Raises ValueError for a file that cannot be read, and for a quote that is not closed.
    """
    expanded = []
    for word in words:
        if word.startswith("@") and len(word) > 1:
            try:
                expanded += shlex.split(sys.stdin.read() if word == "@-" else Path(word[1:]).read_text())
            except OSError as error:
                raise ValueError(f"{word}: the file cannot be read ({error.strerror}); name a file of words") from None
            except ValueError as error:
                raise ValueError(
                    f"{word}: its words cannot be told apart ({error}); quote them as in a shell"
                ) from None
        else:
            expanded.append(word)
    return expanded


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _without_none(hint):
    """Return the type X of an annotation `X | None`, and any other annotation as it is."""
    arguments = typing.get_args(hint)
    return next(kind for kind in arguments if kind is not type(None)) if type(None) in arguments else hint


def _convert_json(name: str, value, hint):
    """Convert a value of JSON to the type of its annotation. Raise ValueError where it has another type."""
    if _without_none(hint) is not hint:
        return None if value is None else _convert_json(name, value, _without_none(hint))
    arguments, origin = typing.get_args(hint), typing.get_origin(hint) or hint
    if origin is Path and isinstance(value, str):
        return Path(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise ValueError(f"{_flag(name)}: {json.dumps(value)[:80]} is no {origin.__name__}")
    if origin is list and arguments:
        return [_convert_json(name, item, arguments[0]) for item in value]
    if origin is dict and arguments:
        return {key: _convert_json(name, item, arguments[1]) for key, item in value.items()}
    return value


def _convert_words(name: str, values: list[str], hint):
    """Convert the words of an argument to the type of its annotation. Raise ValueError where they do not fit."""
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is list:
        return [_convert_words(name, [value], arguments[0]) for value in values]
    if origin is dict:
        return _convert_json(name, _json(name, values), hint)
    if hint in (list, dict):
        return _convert_json(name, _json(name, values), hint)
    if len(values) != 1:
        raise ValueError(f"{_flag(name)} takes one value, not {len(values)}")
    kind = _without_none(hint)
    if kind is bool:
        if values[0].lower() not in ("true", "false"):
            raise ValueError(f"{_flag(name)}: {values[0]!r} is neither true nor false")
        return values[0].lower() == "true"
    try:
        return kind(values[0]) if kind in (int, float, Path) else values[0]
    except ValueError:
        noun = "whole number" if kind is int else "number"
        raise ValueError(f"{_flag(name)}: {values[0]!r} is no {noun}") from None


def _json(name: str, words: list[str]):
    """Return the value of JSON in the words of an argument. Raise ValueError where they are no JSON."""
    text = " ".join(words)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{_flag(name)}: {text[:80]!r} is no JSON ({error})") from None
