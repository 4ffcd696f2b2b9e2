"""Exceptions. All derive from :class:`StellarError`; problems of the service carry its code and request id."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple, Type

__all__ = [
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Forbidden",
    "ForeignResponse",
    "InternalError",
    "InvalidImage",
    "InvalidRequest",
    "MissingScore",
    "NotFound",
    "Overloaded",
    "Problem",
    "RunBlocked",
    "StellarError",
    "Unauthorized",
    "Unavailable",
    "UploadFailed",
]


class StellarError(Exception):
    """Any error of this client."""


class ConnectionFailed(StellarError):
    """The service could not be reached, or broke off its response, until the client's patience ended."""


class ServerFailed(StellarError):
    """A service that `serve` should start is missing or did not start; the message has the end of its log."""


class ForeignResponse(StellarError):
    """A response that this service does not send, such as the error page of a proxy."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class MissingScore(StellarError):
    """A score that the caller needs as a number is null.

    ``reasons`` has the reason for each index.
    """

    def __init__(self, message: str, reasons: Mapping[int, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class RunBlocked(StellarError):
    """Pending samples of a run cannot be scored, since the service has loaded another pack."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class UploadFailed(StellarError):
    """Samples of a run that were not accepted.

    ``failures`` has the error of each, by name.
    """

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        shown = "; ".join(f"{name}: {error}" for name, error in list(failures.items())[:3])
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(f"{len(failures)} samples were not accepted: {shown}{more}")
        self.failures = dict(failures)


class Problem(StellarError):
    """A problem document of the service (RFC 9457).

    The subclasses are families of codes. A code that this version of the client does not know is raised as the
    family of its HTTP status.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        request_id: str = "",
        title: str = "",
        retry_after: Optional[float] = None,
        document: Optional[Mapping[str, Any]] = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" + (f" (request {request_id})" if request_id else ""))
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.title = title
        self.retry_after = retry_after
        self.document: Dict[str, Any] = dict(document or {})

    def __reduce__(self) -> Tuple[Any, ...]:
        # Exceptions are pickled with `args`, which is the message alone. Worker processes send them.
        values = (self.status, self.code, self.detail, self.request_id, self.title, self.retry_after, self.document)
        return type(self), values


class InvalidRequest(Problem):
    """A field, a parameter or the form is wrong; repeating the request does not help."""


class InvalidImage(Problem):
    """An image is missing, damaged, too small or of an unsupported format."""


class Unauthorized(Problem):
    """The API key is missing, unknown, expired or revoked."""


class Forbidden(Problem):
    """The API key lacks a scope, or the request came for another host or from another site."""


class NotFound(Problem):
    """The route, run, sample or dataset does not exist."""


class Conflict(Problem):
    """The name is taken by other content, or the run is finished or belongs to another pack."""


class Overloaded(Problem):
    """A bound of the service or of the key was reached for as long as the client's patience lasted."""


class Unavailable(Problem):
    """The service is starting, stopping, cannot reach its store, or its models are offloaded."""


class DeadlineExceeded(Problem):
    """The service ran out of time, or the body did not arrive in time."""


class InternalError(Problem):
    """A defect of the service. Its log has the cause under ``request_id``."""


FAMILIES: Dict[Type[Problem], Tuple[str, ...]] = {
    InvalidRequest: (
        "malformed_request",
        "method_not_allowed",
        "payload_too_large",
        "unsupported_media_type",
        "missing_field",
        "repeated_field",
        "unknown_field",
        "invalid_field",
        "unknown_metric",
        "prompt_too_long",
    ),
    InvalidImage: (
        "image_unknown",
        "image_empty",
        "image_unsupported",
        "image_truncated",
        "image_corrupt",
        "image_too_small",
    ),
    Unauthorized: ("unauthorized",),
    Forbidden: ("scope_missing", "wrong_host", "cross_site"),
    NotFound: ("not_found",),
    Conflict: (
        "sample_conflict",
        "photo_conflict",
        "run_conflict",
        "run_finished",
        "pack_conflict",
        "study_conflict",
        "study_closed",
        "submission_conflict",
        "faces_not_stored",
        "nothing_to_compare",
    ),
    Overloaded: ("overloaded", "key_limit", "storage_full"),
    Unavailable: ("unavailable", "engine_offloaded"),
    DeadlineExceeded: ("deadline_exceeded", "request_timeout"),
    InternalError: ("internal",),
}
"""The codes of each family."""

_BY_CODE = {code: family for family, codes in FAMILIES.items() for code in codes}
_BY_STATUS: Dict[int, Type[Problem]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: DeadlineExceeded,
    409: Conflict,
    421: Forbidden,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
    507: Overloaded,
}


def problem(status: int, document: Mapping[str, Any], retry_after: Optional[float] = None) -> Problem:
    """Returns the exception for a problem document."""
    code = str(document.get("code", ""))
    family = _BY_CODE.get(code) or _BY_STATUS.get(status) or (InternalError if status >= 500 else InvalidRequest)
    return family(
        status,
        code,
        str(document.get("detail", "")),
        str(document.get("request_id", "")),
        str(document.get("title", "")),
        retry_after,
        document,
    )
