"""`python -m sns_core export`: results of a finished run in forms that other programs use, told apart by the suffix.

python -m sns_core export results/demo sns --output sns.zarr           the frames of the method's rollout
python -m sns_core export results/demo sns --output sns.hdf5           the same in the layout of The Well
python -m sns_core export results/demo sns --output sns.safetensors    the method, for sns_core.load
python -m sns_core export results/demo sns --output sns.pt2            one step of the method, for torch alone
"""

from pathlib import Path

from sns_core.errors import UserError
from sns_core.export.rollout import open_rollout, write_rollout

__all__ = ["export", "open_rollout"]
FORMS = {
    ".zarr": "a Zarr store",
    ".hdf5": "a file in the layout of The Well",
    ".safetensors": "a method",
    ".pt2": "a program of one step",
}


def export(run: Path, method: str, *, output: Path, system: str | None = None) -> str:
    """Write the rollout of a method, or the method itself, in the form that the suffix of the output names.

    Returns a line about what was written. Raises UserError for a folder without a finished run or without this rollout or method,
    for another suffix, where the output is there already, and for a method that has no such form.

    `run`: folder of a finished run; for a method, also the file of an exported one.
    `method`: the method's name in the run.
    `output`: NAME.zarr for a Zarr store of the rollout; NAME.hdf5 for the layout of The Well; NAME.safetensors for a file that
        sns_core.load reads without the run; NAME.pt2 for a program that torch runs without this package.
    `system`: name of the system, needed where the run has several.
    """
    output = Path(output)
    if output.suffix not in FORMS:
        raise UserError(
            f"{output}: name it NAME.zarr for a Zarr store, NAME.hdf5 for the layout of The Well, NAME.safetensors for the method, "
            "or NAME.pt2 for a program of torch"
        )
    if output.exists():
        raise UserError(f"{output}: is there already; name another output, or remove it")
    if output.suffix in (".zarr", ".hdf5"):
        content = write_rollout(run, method, system, output)
    else:
        # Needs torch, which rollouts are written without.
        from sns_core.export.model import write_method, write_program

        write = write_method if output.suffix == ".safetensors" else write_program
        content = write(run, method, system, output)
    return f"{output}: {FORMS[output.suffix]} with {content}"
