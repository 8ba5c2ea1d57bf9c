"""Units as UDUNITS writes them, as far as files of flows use them: parsed, compared and converted.

A unit is a factor times integer powers of base units. Units with an offset, such as degrees Celsius, and units that this
table does not know are equal only where their texts are.
"""

import math
import re

# Name -> (factor, powers of base units). Plural and long names stand in ALIASES.
TABLE = {
    "m": (1.0, {"m": 1}), "s": (1.0, {"s": 1}), "kg": (1.0, {"kg": 1}), "g": (1e-3, {"kg": 1}), "K": (1.0, {"K": 1}),
    "min": (60.0, {"s": 1}), "h": (3600.0, {"s": 1}), "day": (86400.0, {"s": 1}), "week": (604800.0, {"s": 1}),
    "Hz": (1.0, {"s": -1}), "N": (1.0, {"kg": 1, "m": 1, "s": -2}), "Pa": (1.0, {"kg": 1, "m": -1, "s": -2}),
    "bar": (1e5, {"kg": 1, "m": -1, "s": -2}), "J": (1.0, {"kg": 1, "m": 2, "s": -2}), "W": (1.0, {"kg": 1, "m": 2, "s": -3}),
    "rad": (1.0, {}), "degree": (math.pi / 180, {}), "%": (0.01, {}),
}  # fmt: skip
ALIASES = {
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "kelvin": "K", "pascal": "Pa", "percent": "%", "dimensionless": "1",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "minute": "min", "minutes": "min", "hr": "h", "hrs": "h", "hour": "h",
    "hours": "h", "d": "day", "days": "day", "weeks": "week", "millisecond": "ms", "milliseconds": "ms", "microseconds": "us",
    "nanoseconds": "ns", "radian": "rad", "radians": "rad", "degrees": "degree", "deg": "degree",
    "day": "day", "mins": "min", "msec": "ms", "msecs": "ms", "millisec": "ms", "millisecs": "ms",
    "microsecond": "us", "microsec": "us", "microsecs": "us", "nanosecond": "ns",
    "kilometer": "km", "kilometers": "km", "kilometre": "km", "kilometres": "km",
    **{f"{degree}{side}": "degree" for degree in ("degree", "degrees") for side in ("_north", "_east", "_N", "_E", "N", "E")},
}  # fmt: skip
PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "h": 1e2, "c": 1e-2, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
PREFIXED = ("m", "s", "g", "Hz", "N", "Pa", "bar", "J", "W")

POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:\*\*|\^)\s*([-+]?\d+)(?![\w.])")  # of a number, such as 10^6

Parsed = tuple[float, dict[str, int]]


def parse(text: str) -> Parsed | None:
    """Return the factor and the powers of the base units of a text such as "m s-1"; None where it is not understood."""
    try:
        text = POWER.sub(lambda power: repr(float(power[1]) ** int(power[2])), text)
    except ArithmeticError:
        return None
    if re.search(r"\d\s*(?:\*\*|\^)", text):
        return None  # a power that is no integer, or a power of a power
    text = re.sub(r"\s*\*\*\s*|\^", "", text.strip())
    factor, powers, sign = 1.0, {}, 1
    for word in re.findall(r"/|[^\s/*.·]+(?:\.\d+(?:[eE][-+]?\d+)?)?", text):
        if word == "/":
            sign = -1
            continue
        part = _word(word)
        if part is None:
            return None
        factor *= part[0] ** sign
        for base, power in part[1].items():
            powers[base] = powers.get(base, 0) + sign * power
        sign = 1
    return factor, {base: power for base, power in powers.items() if power}


def _word(word: str) -> Parsed | None:
    """Return one unit with its exponent, or a number."""
    try:
        return float(word), {}
    except ValueError:
        pass
    match = re.fullmatch(r"([A-Za-zµ_%]+)([-+]?\d+)?", word)
    if not match:
        return None
    exponent = int(match[2] or 1)
    name = ALIASES.get(match[1]) or (match[1] if len(match[1]) < 3 else ALIASES.get(match[1].lower(), match[1]))
    if name == "1":
        return 1.0, {}
    scale = 1.0
    if name not in TABLE and name[:1] in PREFIXES and name[1:] in PREFIXED:
        scale, name = PREFIXES[name[0]], name[1:]
    if name not in TABLE:
        return None
    factor, powers = TABLE[name]
    return (scale * factor) ** exponent, {base: power * exponent for base, power in powers.items()}


def short_name(text: str) -> str:
    """Return a unit under its short name; "1" where there is none, and for a text such as "grid point" that is no unit."""
    text = text.strip()
    return "1" if not text or parse(text) is None else ALIASES.get(text, ALIASES.get(text.lower(), text))


def conversion(source: str, target: str) -> float | None:
    """Return the factor that converts numbers in `source` to numbers in `target`; None where there is no such factor."""
    if source.strip() == target.strip():
        return 1.0
    left, right = parse(source), parse(target)
    if left is None or right is None or left[1] != right[1]:
        return None
    return left[0] / right[0]


def is_time(text: str) -> bool:
    """Whether a text is a unit of time whose length is fixed: months and years are not."""
    parsed = parse(text)
    return parsed is not None and parsed[1] == {"s": 1}
