"""Results of outbound calls.

CallFailed            no answer came; `sent` says whether the request may have arrived
└── CallRefused       not made: the URL or its address is forbidden
"""

from msgspec import Struct


class CallFailed(Exception):
    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent


class CallRefused(CallFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class HttpAnswer(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    """Names in lower case. The last one wins."""
    body: bytes
