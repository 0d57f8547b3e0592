"""The error tree: what can be refused, and what the caller should do about it.

    PerdureError
    ├── BadRequest              400  malformed id, cursor, cancel of something final
    │   ├── NotCancellable      400
    │   ├── KeyNameTaken        400  another API key of the project has the name
    │   ├── TooManyKeys         400  the project has as many API keys as it may
    │   ├── TooManySchedules    400  the same of schedules
    │   ├── TooManyTriggers     400  the same of event triggers
    │   ├── TooManyProjects     400  the user belongs to as many projects as one may
    │   ├── TooManyMembers      400  the project has as many members, or open invitations, as it may
    │   └── NothingMatches      400  a bulk job's filters match no execution
    ├── Unauthorized            401  no key and no session, or a wrong one
    ├── Forbidden               403  the role of the key or the user does not allow it
    ├── NotFound                404  unknown here; another project's ids look the same
    │   ├── WorkflowNotFound    404
    │   └── DeploymentNotFound  404
    ├── MethodNotAllowed        405  the path is served, with other methods
    ├── RequestTimeout          408  the request took too long to arrive
    ├── Conflict                409  the state does not allow it
    │   ├── LeaseLost           409  a newer attempt drives this execution: stop
    │   ├── IllegalMove         409
    │   ├── NoDeployment        409
    │   ├── KeyReused           409  same Idempotency-Key, other body
    │   ├── SecretShownOnce     409  same Idempotency-Key; the first answer had a secret that is not kept
    │   ├── LaterOutcomes       409  a retry has to say what becomes of outcomes that came after the failure
    │   ├── SessionBusy         409  another execution has its turn in the session
    │   ├── EmailTaken          409  this e-mail has signed up already
    │   ├── AlreadyMember       409
    │   ├── LastAdmin           409  a project without an admin could not be managed
    │   └── ReadOnly            409  the server only reads the store, which another process runs
    ├── TooLarge                413
    ├── UriTooLong              414
    ├── UnsupportedMediaType    415  not JSON in UTF-8, or compressed
    ├── BadValue                422  a value that cannot be kept, with its path
    │   └── SignUpDisabled      422  sign-up needs an invitation
    ├── TooManyRequests         429  too many at once from this caller; try again later
    ├── HeadersTooLarge         431
    ├── InternalError           500  the server's own fault; its log says why
    ├── Unavailable             503  nothing happened; try again
    │   └── StoreAway           503  a beat: no lease counts until the store takes writes again
    └── UnknownOutcome          503  it may have happened; repeat with the same key

`retryable`: the same call may be tried again. Every code that an answer may carry is here, so that clients know it.
"""

from typing import ClassVar


class PerdureError(Exception):
    """The root of all errors of Perdure."""

    code: ClassVar[str] = "ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, details: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[object, ...]:
        """Copying and pickling skip the constructors of subclasses, which differ."""
        return _made_again, (type(self), self.args), vars(self)


def _made_again(kind: type[PerdureError], args: tuple[object, ...]) -> PerdureError:
    return kind.__new__(kind, *args)


class BadRequest(PerdureError):
    code = "BAD_REQUEST"
    status = 400


class NotCancellable(BadRequest):
    code = "CANCELLATION_ERROR"


class KeyNameTaken(BadRequest):
    code = "DUPLICATE_KEY"


class TooManyKeys(BadRequest):
    code = "LIMIT_EXCEEDED"


class TooManySchedules(BadRequest):
    code = "TOO_MANY_SCHEDULES"


class TooManyTriggers(BadRequest):
    code = "TOO_MANY_TRIGGERS"


class TooManyProjects(BadRequest):
    code = "TOO_MANY_PROJECTS"


class TooManyMembers(BadRequest):
    code = "TOO_MANY_MEMBERS"


class NothingMatches(BadRequest):
    code = "NOTHING_MATCHES"


class Unauthorized(PerdureError):
    code = "UNAUTHORIZED"
    status = 401


class Forbidden(PerdureError):
    code = "FORBIDDEN"
    status = 403


class NotFound(PerdureError):
    code = "NOT_FOUND"
    status = 404


class WorkflowNotFound(NotFound):
    code = "WORKFLOW_NOT_FOUND"


class DeploymentNotFound(NotFound):
    code = "DEPLOYMENT_NOT_FOUND"


class MethodNotAllowed(PerdureError):
    """`details` lists the served methods: `{"allow": [...]}`."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


class RequestTimeout(PerdureError):
    code = "REQUEST_TIMEOUT"
    status = 408
    retryable = True


class Conflict(PerdureError):
    code = "CONFLICT"
    status = 409


class LeaseLost(Conflict):
    code = "LEASE_LOST"


class IllegalMove(Conflict):
    code = "ILLEGAL_MOVE"


class NoDeployment(Conflict):
    code = "NO_DEPLOYMENT"


class KeyReused(Conflict):
    code = "IDEMPOTENCY_KEY_REUSED"


class SecretShownOnce(Conflict):
    """The request was done; its answer had a secret, which is not kept. `details` name the created thing."""

    code = "SECRET_SHOWN_ONCE"


class SessionBusy(Conflict):
    """`details` names the execution whose turn is open: `{"execution_id": …}`."""

    code = "SESSION_BUSY"


class LaterOutcomes(Conflict):
    """Neither `keep_later` nor `redo_later` was given. `details` names the steps: `{"later": [...]}`."""

    code = "LATER_OUTCOMES"

    @property
    def keys(self) -> list[str]:
        found = (self.details or {}).get("later")
        return [str(key) for key in found] if isinstance(found, list) else []


class EmailTaken(Conflict):
    code = "EMAIL_ALREADY_EXISTS"


class AlreadyMember(Conflict):
    code = "ALREADY_MEMBER"


class LastAdmin(Conflict):
    code = "LAST_ADMIN"


class ReadOnly(Conflict):
    code = "READ_ONLY"


class TooLarge(PerdureError):
    code = "TOO_LARGE"
    status = 413


class UriTooLong(PerdureError):
    code = "URI_TOO_LONG"
    status = 414


class UnsupportedMediaType(PerdureError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415


class BadValue(PerdureError):
    """A refused value; the message names the field or path."""

    code = "BAD_VALUE"
    status = 422


class SignUpDisabled(BadValue):
    code = "SIGNUP_DISABLED"


class TooManyRequests(PerdureError):
    code = "TOO_MANY_REQUESTS"
    status = 429
    retryable = True


class HeadersTooLarge(PerdureError):
    code = "HEADERS_TOO_LARGE"
    status = 431


class InternalError(PerdureError):
    code = "INTERNAL_ERROR"
    status = 500


class Unavailable(PerdureError):
    code = "UNAVAILABLE"
    status = 503
    retryable = True


class StoreAway(Unavailable):
    """The store takes no writes, or took none until a moment ago. When writes work again, leases start again."""

    code = "STORE_AWAY"


class UnknownOutcome(PerdureError):
    code = "UNKNOWN_OUTCOME"
    status = 503
    retryable = True


def error_classes() -> list[type[PerdureError]]:
    """Roots first, without classes of other rooms."""
    found: list[type[PerdureError]] = [PerdureError]
    for cls in found:
        found.extend(kind for kind in cls.__subclasses__() if kind.__module__ == __name__)
    return found


def from_code(code: str, message: str, details: dict[str, object] | None = None, status: int = 500) -> PerdureError:
    """The error for a reply's `error_type`."""
    for cls in error_classes():
        if cls.code == code:
            return cls(message, details)
    for cls in error_classes():
        if cls.status == status and cls.status != 500:
            return cls(message, details)
    return PerdureError(message, details)
