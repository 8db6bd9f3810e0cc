"""Errors of the service, in OpenAI's shape: `{"error": {"message", "type", "code"}}`."""

from typing import Any

from jclip.errors import JclipError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "limit_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    424: "inference_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}
"""Type of the error for each status."""


class Refusal(JclipError):
    """Error that a client is told.

    Args:
      status: HTTP status, a key of `TYPES`.
      code: name of the error, for programs.
      message: explanation for people: cause and remedy. It must not name the server's files.
      headers: headers of the response, such as Retry-After.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}

    def within(self, where: str) -> "Refusal":
        """Returns the error with its place in the request in front of the message: "input[3]: …"."""
        return Refusal(self.status, self.code, f"{where}: {self}", self.headers)

    def as_error(self) -> dict[str, Any]:
        """Returns the object under "error"."""
        return {"message": str(self), "type": TYPES[self.status], "code": self.code}


def wrong(where: str, message: str) -> Refusal:
    """Returns the 422 for a field with a wrong value."""
    return Refusal(422, "invalid_value", f"{where}: {message}" if where else message)


def over_limit(where: str, found: str, limit: str, option: str) -> Refusal:
    """Returns the 413 that names a limit: "input: 300 items, but the limit is 256 (--max-items)"."""
    place = f"{where}: " if where else ""
    name = option.removeprefix("--max-").replace("-", "_")
    return Refusal(413, f"{name}_limit", f"{place}{found}, but the limit is {limit} ({option})")


ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["message", "type", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string", "enum": sorted(set(TYPES.values()))},
        "code": {"type": "string"},
    },
}
"""JSON schema of an error: of what is under "error" in a response."""
