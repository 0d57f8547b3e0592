"""Users and their place in projects, with the rules for input."""

import re
import unicodedata
from typing import Final, NamedTuple

from msgspec import Struct

from perdure.wire.access import Principal, Role
from perdure.wire.codec import check_name, check_text
from perdure.wire.errors import BadValue

EMAIL_BYTES_MAX: Final = 254
PERSON_BYTES_MAX: Final = 256
"""A person's name."""
PASSWORD_CHARACTERS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1_024
DESCRIPTION_BYTES_MAX: Final = 4_096

INVITATION_PATH: Final = "body.invitation"
"""The field that errors about an invitation name."""

_EMAIL: Final = re.compile(r"[^@\s,;:<>()\[\]\\\"]+@[^@\s,;:<>()\[\]\\\"]+")


class User(Struct, frozen=True):
    """A person who can sign in. `email` is in lower case."""

    id: str
    email: str
    first_name: str | None
    last_name: str | None
    display_name: str | None


class Project(Struct, frozen=True):
    """The owner of data."""

    id: str
    name: str
    description: str | None
    created_at_us: int
    updated_at_us: int


class Member(Struct, frozen=True):
    """A user's place in a project."""

    id: str
    user: User
    role: Role
    created_at_us: int
    updated_at_us: int


class Invitation(Struct, frozen=True):
    """Permission to sign up as a member of a project until a time."""

    email: str
    role: Role
    expires_at_us: int


class Session(NamedTuple):
    """The user of a session's token, and when it ends."""

    principal: Principal
    seconds: float


def email_of(text: str, where: str = "body.email") -> str:
    """An e-mail address in lower case, as it is stored and compared. Raises BadValue."""
    email = unicodedata.normalize("NFC", text.strip()).lower()
    check_name(email, where=where, max_bytes=EMAIL_BYTES_MAX)
    if not _EMAIL.fullmatch(email):
        raise BadValue(f"{where}: {text!r} is not an e-mail address", {"path": where})
    return email


def masked(email: str) -> str:
    """An e-mail of which only the first character and the domain can be read.

    >>> masked("ann@example.com")
    'a***@example.com'
    """
    return f"{email[0]}***@{email.rpartition('@')[2]}"


def check_person(name: str | None, where: str) -> None:
    """Refuse an impossible person's name; it may be empty. Raises BadValue."""
    if name:
        check_name(name, where=where, max_bytes=PERSON_BYTES_MAX)


def password_of(text: str, where: str = "body.password") -> str:
    """A password in the form that is hashed: the same characters from any keyboard are the same password. Raises
    BadValue."""
    password = unicodedata.normalize("NFC", text)
    check_text(password, where=where, max_bytes=PASSWORD_BYTES_MAX)
    return password


def new_password_of(text: str, where: str = "body.password") -> str:
    """The same for a new password, which must be long enough not to be guessed. Raises BadValue."""
    password = password_of(text, where)
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise BadValue(f"{where}: has {len(password)} characters; it needs {PASSWORD_CHARACTERS_MIN}", {"path": where})
    return password


def project_name_of(text: str, where: str = "body.name") -> str:
    """A project's name without surrounding blanks. Raises BadValue."""
    name = text.strip()
    check_name(name, where=where)
    return name
