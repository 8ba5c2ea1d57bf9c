"""The meaning of each value of the configuration, decided once: which YAML values are allowed, whole numbers, defaults.

`plain` makes a mapping of text, numbers, booleans, null, lists and mappings out of what YAML read, and refuses
everything else. `conform` then gives each value the type that the schema asks for and fills in the schema's defaults.
"""

import copy
import datetime
import functools
import math
import unicodedata

from jsonschema import Draft202012Validator

from sns_core.options import shown

DEEPEST = 40  # mappings and lists inside each other
MOST_VALUES = 200_000  # of a whole configuration
LARGEST = 2**63 - 1  # the largest whole number that netCDF files can hold
LONGEST = 4000  # characters of a text


class ConfigurationError(Exception):
    """A configuration that cannot be run. The message is one line: key, value, the mistake and the way out.

    `key` is the place in the configuration at which the file and the line are looked up; by default it is the first
    word of the message.
    """

    def __init__(self, message: str, key: str | None = None):
        super().__init__(" ".join(message.split()))
        self.key = message.split(": ")[0] if key is None else key


def join(place: str, key) -> str:
    """The path of a key: its names joined by dots."""
    return f"{place}.{key}" if place else str(key)


def plain(config: dict) -> dict:
    """Return a copy in which no two places share an object, made of JSON's types alone.

    Raises ConfigurationError for anything else: dates, NaN and infinities, keys that are not text, values that contain
    themselves, control characters, and more values than any configuration needs.
    """
    count = 0

    def copied(value, place: str, parents: tuple):
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise ConfigurationError(f"{place}: the configuration holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict | list):
            if id(value) in parents:
                raise ConfigurationError(
                    f"{place}: contains itself; an anchor (&) must not be used inside its own value"
                )
            if len(parents) >= DEEPEST:
                raise ConfigurationError(f"{place[:80]}: lies more than {DEEPEST} mappings deep")
            inside = (*parents, id(value))
            if isinstance(value, list):
                return [copied(item, join(place, index), inside) for index, item in enumerate(value)]
            for key in value:
                _check_key(place, key)
            return {str(key): copied(item, join(place, key), inside) for key, item in value.items()}
        return _scalar(place, value)

    return copied(config, "", ())


def _check_key(place: str, key) -> None:
    if not isinstance(key, str):
        kind = _kind(key)
        raise ConfigurationError(
            f"{place or 'the configuration'}: the key {shown(key)} is {kind} to YAML; keys are text, so put it in quotes",
            key=join(place, key),
        )
    if not key or len(key) > 200 or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in key):
        raise ConfigurationError(f"{place or 'the configuration'}: {shown(key)} cannot be a key")


def _scalar(place: str, value):
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise ConfigurationError(f"{place}: {shown(value)} is too large; at most {LARGEST}")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigurationError(f"{place}: {value} is not a finite number")
        return value + 0.0  # -0.0 and 0.0 are one value
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise ConfigurationError(f"{place}: a text of {len(value):,} characters; at most {LONGEST:,}")
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
            raise ConfigurationError(
                f"{place}: {shown(value)} holds a line break or another character that cannot be printed"
            )
        return str(value)
    raise ConfigurationError(f"{place}: {shown(value)} is {_kind(value)} to YAML; put it in quotes")


def _kind(value) -> str:
    kinds = (
        (datetime.date, "a date"), (bool, "true or false"), (type(None), "null"), (int | float, "a number"),
        (bytes, "binary data"), (set | frozenset, "a set"), (tuple, "a tuple"),
    )  # fmt: skip
    return next((word for kind, word in kinds if isinstance(value, kind)), f"a {type(value).__name__}")


def merge(base: dict, changes: dict) -> dict:
    """Merge `changes` into `base`, in place: mappings key by key, everything else replaced. Returns `base`."""
    for key, value in changes.items():
        base[key] = merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return base


def conform(config: dict, schema: dict) -> dict:
    """Return a configuration with the types and defaults that a schema states.

    A number without decimals becomes an int where the schema wants a whole number and a float where it wants any
    number, so that 2, 2.0 and 2.0e+0 are one value. Keys that are missing get the schema's `default`. What does not fit
    the schema stays as it is: the validator names it.
    """
    return _conformed(config, [schema], Draft202012Validator(schema))


def _conformed(value, parts: list[dict], root):
    parts = list(_expanded(parts, value, root))
    if isinstance(value, dict):
        for part in parts:
            for key, inner in part.get("properties", {}).items():
                if "default" in inner and key not in value:
                    value = {**value, key: copy.deepcopy(inner["default"])}
        return {key: _conformed(item, [i for p in parts for i in _of_key(p, key)], root) for key, item in value.items()}
    if isinstance(value, list):
        return [
            _conformed(item, [i for p in parts for i in _of_index(p, index)], root) for index, item in enumerate(value)
        ]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    types = {kind for part in parts for kind in _types(part)}
    whole = float(value).is_integer()
    if isinstance(value, float) and whole and "integer" in types and "number" not in types and abs(value) <= LARGEST:
        return int(value)
    if isinstance(value, int) and "number" in types and "integer" not in types:
        return float(value)
    return value


def _types(part: dict) -> list[str]:
    """Types that a part of a schema allows; of an enumeration, those of its values."""
    if "enum" in part:
        return ["integer" for value in part["enum"] if isinstance(value, int) and not isinstance(value, bool)]
    kinds = part.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _of_key(part: dict, key: str) -> list[dict]:
    """The parts of a schema that describe the value of a key."""
    if key in part.get("properties", {}):
        return [part["properties"][key]]
    further = part.get("additionalProperties")
    return [further] if isinstance(further, dict) else []


def _of_index(part: dict, index: int) -> list[dict]:
    """The parts of a schema that describe the item of a list at an index."""
    first = part.get("prefixItems", [])
    return [first[index]] if index < len(first) else [part["items"]] if "items" in part else []


def _expanded(parts: list[dict], value, root):
    """Yield all parts of a schema that hold for a value.

    References are followed and conditions decided; alternatives stand side by side.
    """
    for part in parts:
        if not isinstance(part, dict):
            continue
        yield part
        if "$ref" in part:
            target = functools.reduce(
                lambda node, name: node[name], part["$ref"].removeprefix("#/").split("/"), root.schema
            )
            yield from _expanded([target], value, root)
        yield from _expanded([*part.get("allOf", []), *part.get("anyOf", []), *part.get("oneOf", [])], value, root)
        if "if" in part:
            branch = "then" if root.evolve(schema=part["if"]).is_valid(value) else "else"
            yield from _expanded([part[branch]] if branch in part else [], value, root)
