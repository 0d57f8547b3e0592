"""Users: their records and operations, and the rules for e-mails, names and passwords."""

import re
import unicodedata
from typing import Annotated, Final, NamedTuple

from perdure.wire.access import Principal
from perdure.wire.codec import check_name, check_text
from perdure.wire.errors import BadValue
from perdure.wire.fields import in_body
from perdure.wire.record import Record

EMAIL_BYTES_MAX: Final = 254
PERSON_BYTES_MAX: Final = 256
"""A person's name."""
PASSWORD_CHARACTERS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1_024

INVITATION_PATH: Final = "body.invitation"
"""The field that errors about an invitation name."""

_EMAIL: Final = re.compile(r"[^@\s,;:<>()\[\]\\\"]+@[^@\s,;:<>()\[\]\\\"]+")


def email_of(text: str, where: str = "body.email") -> str:
    """An e-mail address in lower case, as it is stored and compared. Raises BadValue."""
    email = unicodedata.normalize("NFC", text.strip()).lower()
    check_name(email, where=where, max_bytes=EMAIL_BYTES_MAX)
    if not _EMAIL.fullmatch(email):
        raise BadValue(f"{where}: {text!r} is not an e-mail address", {"path": where})
    return email


def person_of(name: str, where: str) -> str:
    """A person's name; it may be empty. Raises BadValue."""
    if name:
        check_name(name, where=where, max_bytes=PERSON_BYTES_MAX)
    return name


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


Email = Annotated[str, in_body(email_of)]
PersonName = Annotated[str, in_body(person_of)]


# --- records -------------------------------------------------------------------------------------------------------


class User(Record, frozen=True):
    """A person who can sign in. `email` is in lower case."""

    id: str
    email: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None


class Session(NamedTuple):
    """The user of a session's token, and when it ends."""

    principal: Principal
    seconds: float
