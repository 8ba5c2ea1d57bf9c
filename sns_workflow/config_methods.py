"""The options of a method, held against the class of its kind: values as the class means them, and its defaults.

The options of a model are held against the class of its objective in the same way.
"""

import contextlib

from sns_core import plugins
from sns_core.options import check
from sns_core.plugins import definitions
from sns_workflow import plugin_checks
from sns_workflow.config_checks import nearest
from sns_workflow.config_renamed import RENAMED
from sns_workflow.config_values import ConfigurationError, plain

# Keys of a method that are no options of its class.
METHOD_KEYS = ("label", "kind", "models", "steps", "segment_steps", "leads")
# Keys of a model that are no options of its objective's class.
MODEL_KEYS = ("objective", "network", "training", "diffusion", "models", "calibration")


def settle_options(where: str, spec: dict, options: dict[str, plugins.Option]) -> dict:
    """Return a method in which each option has its value as the class means it, or the default where it is left out.

    So an option that is left out is the same setting as one that repeats its default, and 8 is the same as 8.0.
    Defaults that a configuration could not state stay out. Raises ConfigurationError for an option that the class does
    not take.
    """
    return _settle(where, spec, options, METHOD_KEYS, "kind", "a method of the kind")


def settle_model(where: str, spec: dict) -> dict:
    """Return a model in which each option of its objective has its value, as `settle_options` does for a method.

    Raises ValueError for an unknown objective, or a file of the user's own that cannot be read.
    """
    name = plugins.objective_class(spec["objective"])
    options = plugins.build_options(name)
    definitions.files_behind(name)
    settled = _settle(where, spec, options, MODEL_KEYS, "objective", "a model with the objective")
    if plugins.is_own(spec["objective"]):
        needed = ("network_arguments", "build", "__call__")
        plugin_checks.check_class(name, "objective", "sns_core.training.objectives.Objective", needed)
    return settled


def _settle(
    where: str, spec: dict, options: dict[str, plugins.Option], keys: tuple, key_of_class: str, what: str
) -> dict:
    what = f"{what} {spec[key_of_class]!r}"
    if clash := sorted(set(keys) & options.keys()):
        raise ConfigurationError(
            f"{where}.{key_of_class}: {spec[key_of_class]!r} has an option {clash[0]!r}, which every {what.split()[1]} has as a "
            "key of its own; give the argument of its build another name"
        )
    settled = {key: spec[key] for key in spec if key in keys}
    for key in spec:
        if key not in keys and key not in options:
            renamed = RENAMED.get(f"{where.partition('.')[0]}.*.{key}")
            hint = f" (it is called {renamed.rpartition('.')[2]!r} now)" if renamed else ""
            close = nearest(key, {*keys, *options}) if not renamed else ""
            takes = close if "did you mean" in close else f"; it takes {', '.join(options) or 'none'}"
            raise ConfigurationError(f"{where}.{key}: {what} has no such option{hint}{takes}")
    for key, option in options.items():
        if key in spec:
            try:
                settled[key] = check(spec[key], option.hint, f"{where}.{key}")
            except ValueError as error:
                raise ConfigurationError(f"{error}{_renamed_inside(key, spec[key], str(error))}") from None
        elif option.required:
            raise ConfigurationError(f"{where}: the key {key!r} is missing; {what} needs it")
        else:
            settled |= _default(key, option)
    return settled


def _default(key: str, option: plugins.Option) -> dict:
    """Return {key: default}, or {} for a default that a configuration could not state.

    Such a default is an expression, a set, or a tuple without an annotation.
    """
    try:
        return plain({key: plugins.default_of(option)})
    except ConfigurationError:
        return {}


def _renamed_inside(key: str, value, message: str) -> str:
    """Return a hint for the message about a missing key, where the option holds this key under its old name."""
    for old, new in RENAMED.items():
        head, _, old_word = old.removeprefix("methods.*.").rpartition(".")
        new_word = new.rpartition(".")[2]
        if head == key and isinstance(value, dict) and old_word in value and f"{new_word!r} is missing" in message:
            return f"; {key}.{old_word} was renamed to {key}.{new_word}"
    return ""


def settings_of(spec: dict) -> dict:
    """Return the settings of a method on which results depend: all but its label, with known defaults.

    A method of a collected run may be of a class that is no longer there. Its settings stay as they were written.
    """
    with contextlib.suppress(ValueError, ConfigurationError):
        spec = settle_options("", spec, plugins.options_of(spec["kind"]))
    return {key: value for key, value in spec.items() if key != "label"}


def model_settings(spec: dict | None) -> dict | None:
    """Return the settings of a model with the defaults of its objective, as far as they are known.

    None for no model.
    """
    with contextlib.suppress(ValueError, ConfigurationError, KeyError, TypeError):
        return settle_model("", spec)
    return spec
