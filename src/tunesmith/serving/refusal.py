"""Why a request is not answered: status, message, and a code that programs can act on."""

from __future__ import annotations

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}
"""OpenAI's error type for a status; `invalid_request_error` for the others below 500."""


class Refusal(Exception):
    """An error response in OpenAI's format."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry: int | None = None, **headers: str
    ) -> None:
        """param: the field of the request that is wrong. retry: seconds after which to try again."""
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry = status, message, code, param, retry
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry is not None:
            self.headers["Retry-After"] = str(retry)

    @classmethod
    def invalid(cls, message: str, code: str = "invalid_request", param: str | None = None) -> Refusal:
        """Return the refusal of a malformed or forbidden request."""
        return cls(400, message, code, param)

    @classmethod
    def too_long(cls, message: str) -> Refusal:
        """Return the refusal of a prompt, or of a number of tokens, that exceeds the model's context."""
        return cls(400, message, "context_length_exceeded", "messages")

    def body(self, request_id: str) -> dict[str, dict[str, str | None]]:
        """Return the JSON body of the response."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = self.message.encode(errors="replace").decode()  # lone surrogates cannot be sent
        return {
            "error": {
                "message": message,
                "type": kind,
                "code": self.code,
                "param": self.param,
                "request_id": request_id,
            }
        }


class QueueFull(Refusal):
    """The queue has no room."""

    def __init__(self, retry: int) -> None:
        """retry: seconds after which it probably has."""
        super().__init__(429, f"too many requests are waiting: try again in {retry} s", "queue_full", retry=retry)


class QueueClosed(Refusal):
    """The queue accepts nothing more, or the request was cancelled."""

    def __init__(self) -> None:
        super().__init__(503, "the server is shutting down", "shutting_down", retry=5, Connection="close")


class DeadlineExceeded(Refusal):
    """The request took longer than `timeout_seconds`."""

    def __init__(self) -> None:
        super().__init__(503, "the request took too long and was cancelled", "timeout", retry=1)
