"""Who may ask the syncer for what, and the words in which anything else is refused."""

from dataclasses import dataclass
from typing import TypeVar

from distbuild.credentials import Credentials, Role, carries
from distbuild.http.front import Call
from distbuild.protocol import messages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestRefused(Exception):
    """A request that is answered with an HTTP status and one line."""

    status: int
    reason: str


class Gate:
    """Lets in whoever shows the right token.

    ``user``: SHA-256 of the token of the syncer's own user. A command may run programs and read
    files as that user, so that no token that others hold as well is enough for one. ``remote``:
    that token counts over TLS too.
    """

    def __init__(self, credentials: Credentials, user: bytes, *, remote: bool = False) -> None:
        self._credentials = credentials
        self._user = user
        self._remote = remote

    def knows(self, authorization: str | None) -> bool:
        """Whether a token of any role, or of our user, is shown."""
        known = self._credentials
        return carries(authorization, self._user) or any(
            known.verify_token(authorization, role) for role in known.accepted
        )

    def admit(self, call: Call, role: Role) -> None:
        """Raises Refused unless the request carries the role's token."""
        if not self._credentials.verify_token(call.authorization, role):
            raise RequestRefused(401, f"a {role} token is needed")

    def admit_user(self, call: Call) -> None:
        """Raises Refused unless the request comes from our own user."""
        if call.is_same_user:
            return
        if not (call.is_local or self._remote):
            raise RequestRefused(
                403,
                "only over the socket in the syncer's home, unless"
                ' "remote_compiles" is set in config.json',
            )
        if not carries(call.authorization, self._user):
            raise RequestRefused(401, "the token of the syncer's user is needed (state/user_token)")

    def message(self, call: Call, role: Role, kind: type[T]) -> T:
        """The body as a message, for an admitted sender. Raises Refused and ProtocolError."""
        self.admit(call, role)
        return messages.decode(call.body, kind)

    def submitted(self, call: Call) -> messages.SubmitRequest:
        """A command of our user's to compile. Raises Refused and ProtocolError."""
        self.admit_user(call)
        message = messages.decode(call.body, messages.SubmitRequest)
        same_version(message.version)
        if not message.argv or not message.cwd.startswith(b"/"):
            raise RequestRefused(400, "argv and an absolute cwd are needed")
        # No process has such a word, path or variable, and no system call takes one.
        values = b"".join((message.cwd, *message.argv, *message.env.values()))
        names = "".join(message.env)
        if b"\0" in values or "\0" in names or "=" in names:
            raise RequestRefused(400, "argv, cwd or env: a NUL, or a variable's name with '='")
        return message


def same_version(version: int) -> None:
    """Raises Refused for another protocol than ours."""
    if version != messages.PROTOCOL_VERSION:
        ours = messages.PROTOCOL_VERSION
        raise RequestRefused(
            409, f"this syncer speaks protocol {ours}, not {version}; install one version"
        )
