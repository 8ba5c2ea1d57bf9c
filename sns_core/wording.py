"""Numbers as a person writes them: in figures, in the report and on the pages of the gallery. Needs no other module."""

import math


def short(value: float) -> str:
    """Return a number in two digits: 0.21, 17, 3×10⁷."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "NaN"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        factor, _, exponent = f"{value:.0e}".partition("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{power}" if factor == "1" else f"{factor}×10{power}"
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"


def count_of(number: float, noun: str) -> str:
    """Return a number with its noun: "1 step", "20 steps"."""
    return f"{number:g} {noun}" + "s" * (number != 1)


def titled(name: str) -> str:
    """Return a name as a title begins, with a capital letter: "Kolmogorov"; "QG" and "myFlow" keep their capitals."""
    return name[:1].upper() + name[1:]


def listed(words: list[str]) -> str:
    """Return words as "A", "A and B" or "A, B and C"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def number(value, decimals: int = 2) -> str:
    """Return a number for a table cell with fixed decimals; a dash if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not math.isfinite(value):
        return "∞"
    return f"{value:.{decimals}f}" if abs(value) < 1000 else digits(float(value))


def digits(value: float) -> str:
    """Return a number in about three digits: 0.0142, 1.07, 327, 3000, 12 000; a dash if there is none."""
    if not math.isfinite(value):
        return number(value)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return short(value)
    return whole(value) if abs(value) >= 999.5 else f"{value:.3g}"


def whole(value: float) -> str:
    """Return a whole number, its thousands apart from 10 000 on."""
    text = f"{value:,.0f}"
    return text.replace(",", "" if abs(value) < 9999.5 else "\u202f")


def interval(low: float, high: float, value: float) -> str:
    """Return an interval as "[low, high]"; nothing if there is none, or if both ends read like the value."""
    ends = digits(low), digits(high)
    return "" if math.isnan(low) or ends == (digits(value),) * 2 else f"[{ends[0]}, {ends[1]}]"


def repaid(units: float) -> str:
    """Return a break-even in time units as "repaid after 30 000", "never repaid", or nothing if there is none."""
    return "" if math.isnan(units) else f"repaid after {digits(units)}" if math.isfinite(units) else "never repaid"


def duration(seconds: float) -> str:
    """Return seconds as 42.0 s, 3 min 10 s or 2 h 05 min."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"
