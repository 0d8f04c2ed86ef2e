"""What a request can be refused for, before each engine puts it into its own words."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - it is the client's error, not ours
    """The request is answered with an error.

    Args:
        status: HTTP status.
        message: For the client's eyes.
        kind: vLLM's name for the error.
        param: The field at fault.
    """

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
