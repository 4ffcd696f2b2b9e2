"""The errors that the command line prints without a traceback."""


class ExportError(Exception):
    """Something about the checkpoints, the options or the target that the user can put right."""


class MissingCheckpoint(ExportError):
    """A file of a checkpoint is neither under the root nor to be had from the hub."""
