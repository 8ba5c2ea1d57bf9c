"""The types of the options that methods take. A configuration's values are checked against them.

The keyword-only arguments of a method's `build` are its options. Their annotations, written with the names below, say
which values are allowed, and this is the one place where an option is stated: the checks of the configuration read the
class's syntax tree (`sns_core.plugins`). This module imports no torch, because every job reads the configuration.
"""

import difflib
import json
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


@dataclass(frozen=True)
class Default:
    """Value of a key of a mapping that is left out. It repeats the default of the class that the mapping describes."""

    value: object


Count = Annotated[int, Bounds(1)]
Level = Annotated[int, Bounds(0)]
Share = Annotated[float, Bounds(0, 1, inside=True)]
Rate = Annotated[float, Bounds(0, 1)]
Positive = Annotated[float, Bounds(0, inside=True)]
NotNegative = Annotated[float, Bounds(0)]
Gain = tuple[NotNegative, NotNegative]
PathName = Literal["left_then_down", "down_then_left", "diagonal", "fixed_condition", "clean", "unconditional"]
AnchorFrame = Literal["initial", "resampled"]
StartFrom = Literal["noise", "previous"]
Bookkeeping = Literal["levels", "indices"]


class PlainReadout(TypedDict):
    """A read-out without a number of its own, see `sns_core.diffusion.readout`."""

    kind: Literal["argmax", "mean", "sample"]


class QuantileReadout(TypedDict):
    """The smallest level whose cumulative probability reaches `quantile`."""

    kind: Literal["quantile"]
    quantile: Share


class CalibratedReadout(TypedDict):
    """A frame is refined where its head finds it less clean than all but the share `refine_share` of true pairs."""

    kind: Literal["calibrated"]
    refine_share: Share


Readout = PlainReadout | QuantileReadout | CalibratedReadout


class SamplerOptions(TypedDict, total=False):
    """The arguments of `sns_core.diffusion.Sampler`."""

    eta: Annotated[float, Bounds(0, 1), Default(1.0)]
    variance: Annotated[Literal["posterior", "forward"], Default("posterior")]
    clip: Annotated[Positive | None, Default(None)]
    order: Annotated[Literal[1, 2], Default(1)]


class Blind(TypedDict):
    """The arguments of `sns_core.methods.BlindLevels`."""

    level: Count
    every: Count
    random: bool


def shown(value) -> str:
    """A value as a message shows it: JSON where possible, on one line, cut where it is long."""
    if isinstance(value, dict):
        return "a mapping"
    try:
        text = json.dumps(value, ensure_ascii=any(0xD800 <= ord(c) < 0xE000 for c in str(value)))
    except (TypeError, ValueError):
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def check(value, hint, where: str):
    """Return a value in the type of its option, so that equal settings are equal values.

    2.0 becomes 2 where the option is a whole number, and 8 becomes 8.0 where it may be any number. `hint`: the
    annotation of the option; `where`: its key.

    Raises ValueError in one line that begins with `where` (the key) and says what is allowed.
    """
    if hint is typing.Any:
        return value
    if hint is None or hint is type(None):
        if value is not None:
            raise ValueError(f"{where}: {shown(value)} is not null")
        return value
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, arguments, where)
    if origin is Annotated:
        return _check_bounds(check(value, arguments[0], where), arguments[1:], where)
    if origin is Literal:
        return _check_literal(value, arguments, where)
    if origin in (list, tuple):
        return _check_sequence(value, origin, arguments, where)
    if origin is dict:
        return _check_dict(value, arguments, where)
    if typing.is_typeddict(hint):
        return _check_mapping(value, hint, where)
    return _check_plain(value, hint, where)


def _check_bounds(value, metadata, where: str):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    for bounds in metadata:
        if number and isinstance(bounds, Bounds) and not bounds.holds(value):
            raise ValueError(f"{where}: {shown(value)} must be {bounds}")
    return value


def _check_literal(value, allowed, where: str):
    for literal in allowed:
        if literal == value and isinstance(literal, bool) == isinstance(value, bool):
            return literal
    words = [literal if isinstance(literal, str) else shown(literal) for literal in allowed]
    close = difflib.get_close_matches(str(value), words, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{where}: {shown(value)} is none of {', '.join(words)}{hint}")


def _check_union(value, hints, where: str):
    if value is None and type(None) in hints:
        return None
    hints = [hint for hint in hints if hint is not type(None)]
    if isinstance(value, dict):
        # The mapping's own `kind` says which alternative is meant. An overlay that changes the kind leaves the keys of
        # the kind before it in the merged mapping; they mean nothing and are dropped.
        mappings = {hint: typing.get_type_hints(hint) for hint in hints if typing.is_typeddict(hint)}
        kinds = {kind: hint for hint, keys in mappings.items() for kind in typing.get_args(keys.get("kind"))}
        if kinds:
            check(value.get("kind"), Literal[tuple(kinds)], f"{where}.kind")
            meant = kinds[value["kind"]]
            leftover = {key for keys in mappings.values() for key in keys} - mappings[meant].keys()
            hints = [meant]
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
        raise ValueError(f"{where}: {shown(value)} is not a list")
    if not hints:
        hints = [typing.Any] * len(value)
    elif kind is list or hints[1:] == (...,):
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise ValueError(f"{where}: {shown(list(value))} must have {len(hints)} values")
    return [check(item, hint, f"{where}.{index}") for index, (item, hint) in enumerate(zip(value, hints, strict=True))]


def _check_dict(value, hints, where: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {shown(value)} is not a mapping")
    hint = hints[1] if len(hints) == 2 else typing.Any
    return {key: check(item, hint, f"{where}.{key}") for key, item in value.items()}


def _check_mapping(value, hint, where: str) -> dict:
    allowed = typing.get_type_hints(hint, include_extras=True)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {shown(value)} is not a mapping with {', '.join(allowed)}")
    for key in value:
        if key not in allowed:
            raise ValueError(f"{where}: unknown key {shown(key)}; known: {', '.join(allowed)}")
    for key in sorted(hint.__required_keys__):
        if key not in value:
            raise ValueError(f"{where}: the key {key!r} is missing")
    defaults = {
        key: default.value
        for key, inner in allowed.items()
        for default in getattr(inner, "__metadata__", ())
        if isinstance(default, Default)
    }
    value = {**defaults, **value}
    return {key: check(item, allowed[key], f"{where}.{key}") for key, item in value.items()}


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _check_plain(value, hint, where: str):
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    allowed = (int, float) if hint is float else hint
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: {shown(value)} is not {WORDS.get(hint, hint.__name__)}")
    if hint is not float:
        return value
    if not math.isfinite(value):
        raise ValueError(f"{where}: {value!r} is not a finite number")
    return float(value)
