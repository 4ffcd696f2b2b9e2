"""The errors that the command line prints without a traceback."""


class TrainError(Exception):
    """Something about the data, the configuration or a folder that the user can put right."""
