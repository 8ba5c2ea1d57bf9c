"""Errors that a user can correct. This module imports nothing, so that every other module can use it."""

from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct. Its message is one line that names the mistake and the remedy."""


class DamagedFile(UserError):
    """A file that is truncated, altered, of another origin, or made for another purpose.

    The file can be made again, so nothing is lost when it is deleted. The command line renames it, so that the next
    call makes it again. `also`: further files to be renamed, such as the manifest with the file's checksum.
    """

    def __init__(self, path, reason: str, *also):
        super().__init__(f"{path}: {reason}; delete it and run again")
        self.paths, self.reason = [Path(path), *map(Path, also)], f"{path}: {reason}"
