"""The version of the client and of the service that it was made for."""

__version__ = "0.1.0"
