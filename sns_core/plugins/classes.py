"""Parameters, needs and options of the class of a system, method or objective, as its file states them.

All functions but `load` read the file that defines the class, and run nothing.
"""

import ast
import copy
import difflib
import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sns_core import options
from sns_core.catalogue import METHODS, OBJECTIVES
from sns_core.plugins.annotations import Annotations
from sns_core.plugins.definitions import ABSENT, PACKAGE, definition, function_of, lineage, literal


@dataclass(frozen=True)
class Option:
    """One option of a method: its type, as `sns_core.options` understands it, and whether it must be given.

    `default`: the value of an option that is left out; ABSENT where the file does not state it as a literal.
    """

    hint: object
    required: bool
    default: object = ABSENT


def is_own(name: str) -> bool:
    """Whether a name leads to a file of the user's own."""
    return "." in name


def load(name: str):
    """The class or function itself."""
    definition(name)
    module, _, wanted = name.rpartition(".")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), wanted)


def parameters(name: str) -> tuple[list[str], list[str]] | None:
    """Names of all parameters of the `__init__` of a user's own class, and of those that must be given.

    None where its `__init__` is inherited or takes any keyword.
    """
    init = function_of(definition(name), "__init__")
    if init is None or init.args.kwarg:
        return None
    inner = init.args
    plain = [argument.arg for argument in inner.args[1:]]
    required = plain[: len(plain) - len(inner.defaults)]
    required += [a.arg for a, value in zip(inner.kwonlyargs, inner.kw_defaults, strict=True) if value is None]
    return plain + [argument.arg for argument in inner.kwonlyargs], required


def short_name(name: str) -> str:
    """Return `Name` of `module.Name`: the name of a metric in files and tables."""
    return name.rpartition(".")[2]


def class_of(kind: str) -> str:
    """`module.Name` of the class of a method's `kind`: a name of the catalogue, or already the user's `module.Name`."""
    return _class_of(kind, METHODS, "kind of method")


def objective_class(objective: str) -> str:
    """`module.Name` of the class of a model's `objective`: a name of the catalogue, or already the user's `module.Name`."""
    return _class_of(objective, OBJECTIVES, "objective")


def _class_of(name: str, catalogue: dict[str, str], noun: str) -> str:
    if is_own(name):
        return name
    if name not in catalogue:
        close = difflib.get_close_matches(name, catalogue, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(catalogue)}, or module.Name of your own"
        raise ValueError(f"unknown {noun} {name!r}; {hint}")
    return catalogue[name]


def _once_for_ours(read: Callable) -> Callable:
    """Let `read` read each class of this package once: its files do not change while it runs, and a user's may."""
    remembered = functools.cache(read)

    @functools.wraps(read)
    def called(name: str):
        return (remembered if name.startswith(f"{PACKAGE.name}.") else read)(name)

    return called


def needs_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Role of each model that a kind of method needs -> objectives, from the class attribute `needs` or its base's."""
    return class_needs(class_of(kind))


@_once_for_ours
def class_needs(name: str) -> dict[str, tuple[str, ...]]:
    """The same for the class `module.Name` of a method or an objective."""
    return next((_needs(ancestor, value) for ancestor, value in _attributes(name, "needs")), {})


def is_calibrated(kind: str) -> bool:
    """Whether a kind of method is measured before it runs, from the class attribute `calibrated` or its base's."""
    return class_is_calibrated(class_of(kind))


@_once_for_ours
def class_is_calibrated(name: str) -> bool:
    """The same for the class `module.Name` of a method, or of an objective, which reads the calibration of a method."""
    return any(value is True for _, value in itertools.islice(_attributes(name, "calibrated"), 1))


def _attributes(name: str, attribute: str) -> Iterator[tuple[str, object]]:
    """Give (class, literal value) of a class attribute of the class `module.Name`, the class's own first."""
    for ancestor in lineage(name):
        for node in definition(ancestor).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == attribute and node.value is not None:
                yield ancestor, literal(node.value)


def _needs(name: str, value) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not all(
        isinstance(role, str)
        and isinstance(objectives, tuple | list)
        and all(isinstance(objective, str) for objective in objectives)
        for role, objectives in value.items()
    ):
        raise ValueError(
            f"{name!r}: needs must be a literal dict, of roles and tuples of objectives, such as "
            '{"surrogate": ("pointwise",)}'
        )
    return {role: tuple(objectives) for role, objectives in value.items()}


def options_of(kind: str) -> dict[str, Option]:
    """Options of a kind of method (see `build_options`)."""
    return build_options(class_of(kind))


@_once_for_ours
def build_options(name: str) -> dict[str, Option]:
    """Options of a class `module.Name`: the keyword-only arguments of its `build`, and its base's where `build` passes
    `**options` on or is inherited."""
    taken = {}
    for ancestor in lineage(name):
        build = function_of(definition(ancestor), "build")
        if build is None:
            continue
        hint_of = Annotations(ancestor.rpartition(".")[0]).hint
        for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
            value = ABSENT if default is None else literal(default)
            taken.setdefault(argument.arg, Option(hint_of(argument.annotation), default is None, value))
        if build.args.kwarg is None:
            break
    return taken


def check_option(kind: str, name: str, value, where: str):
    """The value of an option as the method means it. ValueError, beginning with `where`, for a value that is not allowed."""
    return options.check(value, options_of(kind)[name].hint, where)


def default_of(option: Option):
    """Return the value of an option that is left out, as the configuration would state it; ABSENT where it is unknown."""
    try:
        return options.check(copy.deepcopy(option.default), option.hint, "default")
    except (ValueError, OverflowError):  # `factor: float = None` says more than its annotation
        return option.default
