"""Why a request is not answered: status, message, and a code that programs can act on."""

from __future__ import annotations

from typing import Any

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}
"""OpenAI's word for a status; `invalid_request_error` for the others below 500."""


class Refusal(Exception):
    """An error that a client is told, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry: int | None = None, **headers: str
    ) -> None:
        """param: the field of the request that is wrong. retry: seconds after which to try again."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry is not None:
            self.headers["Retry-After"] = str(retry)

    @classmethod
    def invalid(cls, message: str, code: str = "invalid_request", param: str | None = None) -> Refusal:
        """The request is wrong."""
        return cls(400, message, code, param)

    @classmethod
    def too_long(cls, message: str) -> Refusal:
        """A prompt, or what is asked for, has more tokens than there is room for."""
        return cls(400, message, "context_length_exceeded", "messages")

    @classmethod
    def busy(cls, retry: int) -> Refusal:
        """The queue is full."""
        return cls(429, f"too many requests wait: try again in {retry} s", "queue_full", retry=retry)

    @classmethod
    def late(cls) -> Refusal:
        """The request took longer than it may."""
        return cls(503, "the request took too long and was ended", "timeout", retry=1)

    @classmethod
    def closing(cls) -> Refusal:
        """The server is about to end."""
        return cls(503, "the server is shutting down", "shutting_down", retry=5, Connection="close")

    def body(self, request: str) -> dict[str, Any]:
        """The JSON of an answer. request: its id."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = self.message.encode(errors="replace").decode()  # half characters cannot be sent
        return {
            "error": {"message": message, "type": kind, "code": self.code, "param": self.param, "request_id": request}
        }
