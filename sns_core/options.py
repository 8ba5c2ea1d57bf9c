"""The types of the options that methods take. A configuration's values are checked against them.

The keyword-only arguments of a method's `build` are its options. Their annotations, written with the names below, say
which values are allowed, and this is the one place where an option is stated: the checks of the configuration read the
class's syntax tree (`sns_core.plugins`). This module imports no torch, because every job reads the configuration.
"""

import difflib
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict


@dataclass(frozen=True)
class Bounds:
    """Allowed range of a number: at least `minimum`, at most `maximum`; with `inside` the ends are excluded."""

    minimum: float = -math.inf
    maximum: float = math.inf
    inside: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range; NaN never does."""
        if self.inside:
            return self.minimum < value < self.maximum
        return self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        if self.maximum == math.inf:
            return f"{'greater than' if self.inside else 'at least'} {self.minimum:g}"
        return f"between {self.minimum:g} and {self.maximum:g}" + (", ends excluded" if self.inside else "")


Count = Annotated[int, Bounds(1)]
Level = Annotated[int, Bounds(0)]
Share = Annotated[float, Bounds(0, 1, inside=True)]
Positive = Annotated[float, Bounds(0, inside=True)]
NotNegative = Annotated[float, Bounds(0)]
Gain = tuple[NotNegative, NotNegative]
PathName = Literal["left_then_down", "down_then_left", "diagonal", "fixed_condition", "clean", "unconditional"]
AnchorFrame = Literal["initial", "resampled"]
StartFrom = Literal["noise", "previous"]


class PlainReadout(TypedDict):
    kind: Literal["argmax", "mean", "sample"]


class QuantileReadout(TypedDict):
    kind: Literal["quantile"]
    quantile: Share


class CalibratedReadout(TypedDict):
    kind: Literal["calibrated"]
    refine_share: Share


Readout = PlainReadout | QuantileReadout | CalibratedReadout


class SamplerOptions(TypedDict, total=False):
    eta: Annotated[float, Bounds(0, 1)]
    variance: Literal["posterior", "forward"]
    clip: Positive | None
    order: Literal[1, 2]


class Blind(TypedDict):
    level: Count
    every: Count
    random: bool


def check(value, hint, where: str):
    """The value as the option means it: 2.0 is 2 where a whole number is wanted.

    Raises ValueError in one line that begins with `where` (the key) and says what is allowed.
    """
    if hint is typing.Any:
        return value
    if hint is None or hint is type(None):
        if value is not None:
            raise ValueError(f"{where}: {value!r} is not null")
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, arguments, where)
    if origin is Annotated:
        value, bounds = check(value, arguments[0], where), arguments[1]
        if isinstance(bounds, Bounds) and not bounds.holds(value):
            raise ValueError(f"{where}: {value!r} must be {bounds}")
        return value
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            close = difflib.get_close_matches(str(value), map(str, arguments), 1, 0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}{hint}")
        return value
    if origin in (list, tuple):
        return _check_sequence(value, origin, arguments, where)
    if typing.is_typeddict(hint):
        return _check_mapping(value, hint, where)
    return _check_plain(value, hint, where)


def _check_union(value, hints, where: str):
    if value is None and type(None) in hints:
        return None
    hints = [hint for hint in hints if hint is not type(None)]
    if isinstance(value, dict):
        # The mapping's own `kind` says which alternative is meant. An overlay that changes the kind leaves the keys of
        # the kind before it in the merged mapping; they mean nothing and are dropped.
        kinds = {kind: hint for hint in hints for kind in typing.get_args(typing.get_type_hints(hint).get("kind"))}
        if kinds:
            check(value.get("kind"), Literal[tuple(kinds)], f"{where}.kind")
            keys = {key for hint in hints for key in typing.get_type_hints(hint)}
            hints = [kinds[value["kind"]]]
            leftover = keys - typing.get_type_hints(hints[0]).keys()
            value = {key: item for key, item in value.items() if key not in leftover}
    errors = []
    for hint in hints:
        try:
            return check(value, hint, where)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _check_sequence(value, kind, hints, where: str):
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: {value!r} is not a list")
    if kind is list:
        hints = hints * len(value)
    if len(value) != len(hints):
        raise ValueError(f"{where}: {list(value)} must have {len(hints)} values")
    return [check(item, hint, f"{where}[{index}]") for index, (item, hint) in enumerate(zip(value, hints, strict=True))]


def _check_mapping(value, hint, where: str) -> dict:
    allowed = typing.get_type_hints(hint, include_extras=True)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {value!r} is not a mapping with {', '.join(allowed)}")
    for key in value:
        if key not in allowed:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(allowed)}")
    for key in hint.__required_keys__:
        if key not in value:
            raise ValueError(f"{where}: the key {key!r} is missing")
    return {key: check(item, allowed[key], f"{where}.{key}") for key, item in value.items()}


WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "a mapping",
    list: "a list",
}


def _check_plain(value, hint, where: str):
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    allowed = (int, float) if hint is float else hint
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: {value!r} is not {WORDS.get(hint, hint.__name__)}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where}: {value!r} is not a finite number")
    return value
