"""Mistakes that the schema finds in a configuration, each as one line in plain words that begins with the key."""

from collections.abc import Iterator

from sns_workflow.config_checks import nearest
from sns_workflow.config_renamed import name_now
from sns_workflow.config_values import join, shown

KINDS = {
    "object": "a mapping", "array": "a list", "integer": "a whole number", "null": "null", "string": "text",
    "boolean": "true or false",
}  # fmt: skip
BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most", "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of", "const": "exactly",
}  # fmt: skip
SIZES = {
    "minItems": "hold at least {} values", "maxItems": "hold at most {} values",
    "minLength": "have at least {} characters", "maxLength": "have at most {} characters",
}  # fmt: skip


def explain_first(errors: list) -> tuple[str, str]:
    """Return one line about one of jsonschema's errors, and the path of the key that it is about.

    An old name of a key comes first: other errors may follow from it, for example a key that is missing.
    """
    deepest = [_most_specific(error) for error in errors]
    renamed = next((names for error in deepest for names in _renamed_keys(error)), None)
    if renamed:
        old, new = renamed
        return f"{old}: was renamed to {new}", old
    return _explain(deepest[0])


def _most_specific(error):
    """Return the error inside the alternatives of a value that says most to the user.

    jsonschema reports every alternative that does not fit. The deepest error belongs to the alternative that the user
    meant; an error of the type, such as "is not null", belongs to one that the user did not mean.
    """
    if not error.context:
        return error
    inside = map(_most_specific, error.context)
    return max(inside, key=lambda e: (len(e.absolute_path), e.validator != "type", e.validator != "const"))


def _renamed_keys(error) -> Iterator[tuple[str, str]]:
    """Yield (old, new) paths of keys under an old name that explain an unknown key or a missing one."""
    rule = error.validator
    if rule == "additionalProperties":
        candidates = error.instance.keys() - error.schema.get("properties", {}).keys()
    else:
        candidates = error.instance if rule == "required" else ()
    for key in candidates:
        old = ".".join(map(str, [*error.absolute_path, key]))
        new = name_now(old)
        if new and (rule != "required" or new.rpartition(".")[2] in set(error.validator_value) - error.instance.keys()):
            yield old, new


def _explain(error) -> tuple[str, str]:
    """Return one line about an error, and the path of the key that it is about."""
    path = ".".join(str(part) for part in error.absolute_path)
    message, key = f"{path or 'the configuration'}: {_complaint(error)}", path
    if error.validator == "additionalProperties":
        key = join(path, _unknown_key(error))
    return message, key


def _complaint(error) -> str:
    """Return what is wrong with a value, and the way out where there is one."""
    rule, value, limit = error.validator, error.instance, error.validator_value
    if rule == "additionalProperties":
        unknown = _unknown_key(error)
        return f"unknown key {shown(unknown)}{nearest(unknown, error.schema.get('properties', {}))}"
    if rule == "required":
        return f"the key {next(key for key in limit if key not in value)!r} is missing"
    if rule == "type":
        kinds = limit if isinstance(limit, list) else [limit]
        words = " or ".join(KINDS.get(kind, f"a {kind}") for kind in kinds)
        return f"{shown(value)} is not {words}{_likely_reason(value, kinds)}"
    if rule == "enum":
        allowed = [str(v) for v in limit]
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        return f"{shown(value)} is none of {', '.join(allowed)}{hint if 'did you mean' in hint else ''}"
    if rule in BOUNDS:
        return f"{shown(value)} must be {BOUNDS[rule]} {limit:g}"
    if rule in SIZES:
        return f"{shown(value)} must {SIZES[rule].format(limit)}"
    if rule == "pattern":
        return f"{shown(value)} is not allowed; use {error.schema.get('description', limit)}"
    if rule == "uniqueItems":
        twice = next((item for index, item in enumerate(value) if item in value[:index]), value)
        return f"{shown(twice)} stands twice"
    return " ".join(error.message.split())[:200]


def _unknown_key(error) -> str:
    return next(key for key in error.instance if key not in error.schema.get("properties", {}))


def _likely_reason(value, kinds: list[str]) -> str:
    """Return the likely reason why a value has another type than it should have."""
    if value == "null" and "null" in kinds:
        return " (it is text: --config passes null as text; write it in a file, without quotes, and name that after --configfile)"
    if isinstance(value, str) and {"number", "integer"} & set(kinds):
        try:
            float(value)
        except ValueError:
            return ""
        if "e" in value.lower():
            return " (YAML reads 1e-3 and 1.0e6 as text; write 1.0e-3 and 1.0e+6)"
        return (
            " (it is text: leave out the quotes; --config passes all values inside mappings as text, a file does not)"
        )
    if "string" in kinds and isinstance(value, bool):
        return " (YAML reads yes, no, on and off as true and false; put the word in quotes)"
    if "string" in kinds and isinstance(value, int | float):
        return "; put it in quotes" if kinds == ["string"] else ""
    return ""
