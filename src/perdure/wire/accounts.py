"""Users and their place in projects: what is kept of them, and the rules for what people type in."""

import re
import unicodedata
from typing import Final, NamedTuple

from msgspec import Struct

from perdure.wire.access import Principal, Role
from perdure.wire.codec import check_name, check_text
from perdure.wire.errors import BadValue

EMAIL_BYTES_MAX: Final = 254
PERSON_BYTES_MAX: Final = 256
"""A name of a person."""
PASSWORD_CHARACTERS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1_024
DESCRIPTION_BYTES_MAX: Final = 4_096

INVITATION_PATH: Final = "body.invitation"
"""The field that a wrong invitation is told by."""

_EMAIL: Final = re.compile(r"[^@\s,;:<>()\[\]\\\"]+@[^@\s,;:<>()\[\]\\\"]+")


class User(Struct, frozen=True):
    """Somebody who can sign in. `email` is in lower case."""

    id: str
    email: str
    first_name: str | None
    last_name: str | None
    display_name: str | None


class Project(Struct, frozen=True):
    """Whose data it is."""

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
    """Who may sign up as a member of a project, and until when."""

    email: str
    role: Role
    expires_at_us: int


class Session(NamedTuple):
    """Who a session's token stands for, and for how long."""

    principal: Principal
    seconds: float


def email_of(text: str, where: str = "body.email") -> str:
    """An e-mail address as it is kept and compared: in lower case. Raises BadValue."""
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
    """Refuse what cannot be a person's name; it may be empty. Raises BadValue."""
    if name:
        check_name(name, where=where, max_bytes=PERSON_BYTES_MAX)


def password_of(text: str, where: str = "body.password") -> str:
    """A password as it is hashed: typed on any keyboard, the same characters are the same password. Raises BadValue."""
    password = unicodedata.normalize("NFC", text)
    check_text(password, where=where, max_bytes=PASSWORD_BYTES_MAX)
    return password


def new_password_of(text: str, where: str = "body.password") -> str:
    """The same for a password that is being chosen, which must not be too short to be guessed. Raises BadValue."""
    password = password_of(text, where)
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise BadValue(f"{where}: has {len(password)} characters; it needs {PASSWORD_CHARACTERS_MIN}", {"path": where})
    return password


def project_name_of(text: str, where: str = "body.name") -> str:
    """A project's name, without blanks around it. Raises BadValue."""
    name = text.strip()
    check_name(name, where=where)
    return name
