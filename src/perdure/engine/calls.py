"""What a call out may come to.

CallFailed            no answer came; `sent` says whether the request may have arrived
└── CallRefused       it was not made: the URL or its address is not one to call
"""

from msgspec import Struct


class CallFailed(Exception):
    """No answer came."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent
        """Whether the other side may have got the request."""


class CallRefused(CallFailed):
    """It was not made."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    """Names in lower case; of a header that is there twice the last one."""
    body: bytes
    complete: bool = True
    """Whether the body is all of it: no more is read than was asked for."""
