"""Checks of systems, methods, objectives and metrics of the user's own, before anything runs.

They see what the user's files say, and run nothing. Every mistake is a ValueError in one line.
"""

import ast

from sns_core.plugins.definitions import bases_of, definition, function_of, lineage


def check_class(name: str, noun: str, root: str, needed: tuple[str, ...], derived: bool = False) -> None:
    """Raise ValueError for a class `module.Name` of the user's own that cannot serve, as far as its file says so.

    `noun`: what the class is; `root`: `module.Name` of the class from which such classes derive; `needed`: what it must
    define, alternatives with a bar between them; `derived`: whether it must derive from `root`. Where a base lies in a
    file that cannot be read here, that base may define the rest.
    """
    article = "an" if noun[0] in "aeiou" else "a"
    if not isinstance(definition(name), ast.ClassDef):
        raise ValueError(f"{name!r}: is a function, and {article} {noun} is a class")
    names = lineage(name)
    above = [each for each in names if each != root]
    _check_build(name, above)
    if any(len(definition(each).bases) > len(list(bases_of(each))) for each in above):
        return
    if derived and root not in names:
        package, _, short = root.rpartition(".")
        raise ValueError(f"{name!r}: is no {noun}; derive it from {package.rpartition('.')[0]}.{short}")
    defined = {each for ancestor in above for each in _names_in(definition(ancestor))}
    for alternatives in needed:
        words = alternatives.split("|")
        if not defined & set(words):
            raise ValueError(f"{name!r}: defines no {' or '.join(words)}, which every {noun} needs; define it")


def _check_build(name: str, names: list[str]) -> None:
    """Raise ValueError where the `build` of a class, or of the first of `names` that has one, is called without its class."""
    build = next(filter(None, (function_of(definition(each), "build") for each in names)), None)
    first = build.args.args[0].arg if build and build.args.args else ""
    if first in ("cls", "self") and not build.decorator_list:
        raise ValueError(
            f"{name!r}: its build is no class method; write @classmethod above it, and cls as its first argument"
        )


def _names_in(node: ast.ClassDef) -> set[str]:
    """Return the names of all functions in a class, and all names to which it assigns."""
    inner = [*ast.walk(node)]
    stored = {each.id for each in inner if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return stored | {each.name for each in inner if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def check_metric(name: str) -> None:
    """Raise ValueError where `module.name` of the user's own is no function that can be called with (frames, system)."""
    function = definition(name)
    if not isinstance(function, ast.FunctionDef):
        raise ValueError(f"{name!r}: is a class, and a metric is a function of frames and system")
    inner = function.args
    taken = [argument.arg for argument in (*inner.posonlyargs, *inner.args)]
    without = [a.arg for a, value in zip(inner.kwonlyargs, inner.kw_defaults, strict=True) if value is None]
    enough = len(taken) >= 2 or inner.vararg
    if not function.decorator_list and (not enough or len(taken) - len(inner.defaults) > 2 or without):
        words = ", ".join([*taken, *without]) or "nothing"
        raise ValueError(f"{name!r}: takes {words}; a metric is called with two arguments, frames and system")
