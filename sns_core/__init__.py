"""Self-refining neural surrogates: systems, diffusion, networks, methods, rollouts and metrics.

`sns_core.load` opens a finished run as an `Emulator` (docs/library.md), and mistakes raise `sns_core.UserError`.
`sns_core.methods`, `sns_core.systems`, `sns_core.diffusion` and `sns_core.metrics` hold the parts.

The floors of the house, ground floor first. A room is a module or a package of `sns_core`; it imports only from rooms on
lower floors. tests/unit/test_house.py reads this table and holds the code to it.

    0  errors, arguments, catalogue, gpus, stages, options, grids, progress, streams, sums, units, version, wording
    1  files, plugins, device, processes, shells, stage_help, pages
    2  systems, record, gallery
    3  data
    4  diffusion, metrics
    5  networks, figures
    6  training, theory
    7  methods
    8  rollout
    9  evaluation
   10  library, report, collection, comparison, __main__
   11  export
"""

import importlib

from sns_core.errors import UserError as UserError
from sns_core.version import __version__ as __version__

__all__ = ["Emulator", "UserError", "load", "roll"]
ROOMS = (
    "data",
    "diffusion",
    "evaluation",
    "methods",
    "metrics",
    "networks",
    "rollout",
    "systems",
    "theory",
    "training",
)


def __getattr__(name: str):
    """Names of the door and rooms, loaded when they are first used: most of them need torch."""
    if name in ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sns_core.library import Emulator, load
    from sns_core.rollout.engine import roll

    return locals()[name]


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS, "__version__"])
