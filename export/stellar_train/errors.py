"""The errors that the command line prints without a traceback."""

from stellar_export.errors import ExportError


class TrainError(ExportError):
    """Something about the data, the configuration or a folder that the user can put right."""
