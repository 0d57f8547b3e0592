"""Users, and the rules for e-mails, names and passwords."""

import re
import unicodedata
from typing import Annotated, Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import asdict

from perdure.wire.base.codec import check_name, check_text
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import in_body
from perdure.wire.base.operation import Noun, Operation, Request
from perdure.wire.base.record import Record

EMAIL_BYTES_MAX: Final = 254
BODY_BYTES_MAX: Final = 16 << 10
"""A body with an e-mail, a password or a key."""
PERSON_BYTES_MAX: Final = 256
PASSWORD_CHARACTERS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1_024

INVITATION_PATH: Final = "body.invitation"
"""The field named by errors about an invitation."""

_EMAIL: Final = re.compile(r"[^@\s,;:<>()\[\]\\\"]+@[^@\s,;:<>()\[\]\\\"]+")


def parse_email(text: str, where: str = "body.email") -> str:
    """An e-mail in lower case, for storage and comparison. Raises BadValue."""
    email = unicodedata.normalize("NFC", text.strip()).lower()
    check_name(email, where=where, max_bytes=EMAIL_BYTES_MAX)
    if not _EMAIL.fullmatch(email):
        raise BadValue(f"{where}: {text!r} is not an e-mail address", {"path": where})
    return email


def parse_person(name: str, where: str) -> str:
    """A name, possibly empty. Raises BadValue."""
    if name:
        check_name(name, where=where, max_bytes=PERSON_BYTES_MAX)
    return name


def parse_password(text: str, where: str) -> str:
    """A password ready for hashing: equal characters from any keyboard give equal passwords. Raises BadValue."""
    password = unicodedata.normalize("NFC", text)
    check_text(password, where=where, max_bytes=PASSWORD_BYTES_MAX)
    return password


def parse_new_password(text: str, where: str) -> str:
    """A new password, refused if short enough to guess. Raises BadValue."""
    password = parse_password(text, where)
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise BadValue(f"{where}: has {len(password)} characters; it needs {PASSWORD_CHARACTERS_MIN}", {"path": where})
    return password


Email = Annotated[str, in_body(parse_email)]
PersonName = Annotated[str, in_body(parse_person)]
Password = Annotated[str, in_body(parse_password)]
NewPassword = Annotated[str, in_body(parse_new_password)]


class User(Record, frozen=True, omit_defaults=True):
    """A user for other members; missing names are left out."""

    shown_as: ClassVar[str] = "UserInfo"

    id: str
    email: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None


class Me(User, frozen=True, omit_defaults=False):
    """A user for the user's own eyes."""

    shown_as: ClassVar[str] = "UserOut"

    auth_provider: str | None = None
    """`password`."""
    external_id: str | None = None
    """Always null today."""


def shown_user(user: User) -> User:
    """An empty name counts as missing."""
    values: dict[str, Any] = {name: value or None for name, value in asdict(user).items()}
    return User(**values)


def to_me(user: User) -> Me:
    return Me(**asdict(user), auth_provider="password")


class AuthResponse(Record, frozen=True):
    """Signed in: the response sets the session's cookie."""

    message: str
    user: Me


auth: Final = Noun("Auth")
"""The operations on accounts. Routes with cookies are written by hand."""


@auth.get("/api/v1/auth/me", role=None, contract=True)
class GetMe(Operation[Me], frozen=True):
    """The signed-in user."""


@auth.put("/api/v1/auth/me", role=None, contract=True, body_bytes_max=BODY_BYTES_MAX)
class UpdateMe(Operation[Me], frozen=True):
    """Change the signed-in user's names.

    A missing or null field stays.
    """

    first_name: PersonName | None = None
    last_name: PersonName | None = None
    display_name: PersonName | None = None


class SignUpRequest(Struct, frozen=True):
    """Create a user. The password has at least 8 characters."""

    first_name: PersonName
    last_name: PersonName
    email: Email
    password: NewPassword
    invitation: str | None = None
    """The token from a project's admin for the e-mail. The token makes you a member, and is required if sign-up is
    closed. If the e-mail has an account already, another e-mail may sign up with the token."""


class SignInRequest(Struct, frozen=True):
    email: Email
    password: Password


class ChangePasswordRequest(Request, frozen=True):
    current_password: Password
    new_password: NewPassword
