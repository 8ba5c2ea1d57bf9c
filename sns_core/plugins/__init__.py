"""Systems, methods and metrics of the user's own: names with a dot, `module.Name`, of files in the working directory.

The methods of this project come in by the same door: `catalogue.METHODS` gives their `module.Name`. `definitions` reads
the files that define classes and functions, `annotations` the types that they name, and `classes` what a class says of
its needs and options. Only `load` runs a file. So a configuration is checked, and its code fingerprinted, without
torch. Every mistake is a ValueError in one line.
"""

from sns_core.plugins.classes import (
    Option,
    build_options,
    check_option,
    class_is_calibrated,
    class_needs,
    class_of,
    default_of,
    is_calibrated,
    is_own,
    load,
    needs_of,
    objective_class,
    options_of,
    parameters,
    short_name,
)

__all__ = [
    "Option",
    "build_options",
    "check_option",
    "class_is_calibrated",
    "class_needs",
    "class_of",
    "default_of",
    "is_calibrated",
    "is_own",
    "load",
    "needs_of",
    "objective_class",
    "options_of",
    "parameters",
    "short_name",
]
