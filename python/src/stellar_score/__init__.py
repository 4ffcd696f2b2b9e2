"""A client of stellar-score, the service that scores images of personalised text-to-image generators.

::

    from stellar_score import Client

    client = Client("http://127.0.0.1:8080")
    response = client.score("image.png", "a person on a horse", reference="photo.jpg")
    print(response["scores"]["clip_t"]["value"])
"""

from . import errors, models
from ._version import __version__
from .aio import AsyncClient, AsyncRun
from .client import Client
from .dataset import Dataset, DatasetError, Job, Photo
from .errors import (
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    ForeignResponse,
    InternalError,
    InvalidImage,
    InvalidRequest,
    MissingScore,
    NotFound,
    Overloaded,
    Problem,
    RunBlocked,
    ServerFailed,
    StellarError,
    Unauthorized,
    Unavailable,
    UploadFailed,
)
from .frames import frame, rows, summary
from .generated import Generated
from .pixels import PixelRangeWarning, Pixels
from .rewards import DdpoReward, GrpoReward, Rewards
from .runs import Run
from .server import Server, serve

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
    "DatasetError",
    "DdpoReward",
    "DeadlineExceeded",
    "Forbidden",
    "ForeignResponse",
    "Generated",
    "GrpoReward",
    "InternalError",
    "InvalidImage",
    "InvalidRequest",
    "Job",
    "MissingScore",
    "NotFound",
    "Overloaded",
    "Photo",
    "PixelRangeWarning",
    "Pixels",
    "Problem",
    "Rewards",
    "Run",
    "RunBlocked",
    "Server",
    "ServerFailed",
    "StellarError",
    "Unauthorized",
    "Unavailable",
    "UploadFailed",
    "__version__",
    "errors",
    "frame",
    "models",
    "rows",
    "serve",
    "summary",
]
