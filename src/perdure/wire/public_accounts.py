"""The API's shapes of sign-in, with the contract's names (see `wire/public.py`)."""

from msgspec import Struct

from perdure.wire.accounts import User
from perdure.wire.requests import Request

# --- signing in ----------------------------------------------------------------------------------------------------


class SignUpRequest(Struct, frozen=True):
    """Create a user. The password has at least 8 characters."""

    first_name: str
    last_name: str
    email: str
    password: str
    invitation: str | None = None
    """The token that a project's admin got for this e-mail. It makes you a member, and is required if sign-up is
    closed."""


class SignInRequest(Struct, frozen=True):
    """E-mail and password of a user."""

    email: str
    password: str


class UpdateMeRequest(Struct, frozen=True):
    """Your names; a missing or null field stays."""

    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None


class ChangePasswordRequest(Request, frozen=True):
    """The current password and the new one."""

    current_password: str
    new_password: str


class UserOut(Struct, frozen=True):
    """A user as they see themselves."""

    id: str
    email: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    auth_provider: str | None = None
    """How they sign in: `password`."""
    external_id: str | None = None
    """Their id at another provider; always null today."""


def user_out(user: User) -> UserOut:
    return UserOut(user.id, user.email, user.first_name, user.last_name, user.display_name, "password")


class AuthResponse(Struct, frozen=True):
    """Signed in: the response sets the session's cookie."""

    message: str
    user: UserOut
