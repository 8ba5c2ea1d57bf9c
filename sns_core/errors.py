"""Mistakes that a user can mend. Apart from the rest of the ground floor, since a figure that tells of one needs no torch."""

from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend: printed as one line that names what is wrong and the way out."""


class DamagedFile(UserError):
    """A file that is not what it should be: truncated, altered, foreign, or made for something else.

    Deleting it loses nothing that cannot be made again. The command line sets such files aside (`also`: those that vouch
    for it, too), so that the next call makes them anew.
    """

    def __init__(self, path, reason: str, *also):
        super().__init__(f"{path}: {reason}; delete it and run again")
        self.paths, self.reason = [Path(path), *map(Path, also)], f"{path}: {reason}"
