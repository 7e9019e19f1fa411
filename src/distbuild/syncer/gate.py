"""Who may ask the syncer for what, and the words in which anything else is refused."""

from dataclasses import dataclass
from typing import TypeVar

from distbuild.protocol import messages
from distbuild.serving.front import Call
from distbuild.tls import Credentials, Role

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """A request that is answered with an HTTP status and one line."""

    status: int
    reason: str


class Gate:
    """Lets in whoever shows the right token."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def knows(self, authorization: str | None) -> bool:
        """Whether a token of any role is shown."""
        credentials = self._credentials
        return any(credentials.verify_token(authorization, role) for role in credentials.accepted)

    def admit(self, call: Call, role: Role) -> None:
        """Raises Refused unless the request carries the role's token, or comes from our user."""
        if role == "dev" and call.is_same_user:
            return
        if not self._credentials.verify_token(call.authorization, role):
            raise Refused(401, f"a {role} token is needed")

    def message(self, call: Call, role: Role, kind: type[T]) -> T:
        """The body as a message, for an admitted sender. Raises Refused and ProtocolError."""
        self.admit(call, role)
        return messages.decode(call.body, kind)

    def submitted(self, call: Call) -> messages.SubmitRequest:
        """A developer's command. Raises Refused and ProtocolError."""
        message = self.message(call, "dev", messages.SubmitRequest)
        same_version(message.version)
        if not message.argv or not message.cwd.startswith(b"/"):
            raise Refused(400, "argv and an absolute cwd are needed")
        # No process has such a word, path or variable, and no system call takes one.
        values = b"".join((message.cwd, *message.argv, *message.env.values()))
        names = "".join(message.env)
        if b"\0" in values or "\0" in names or "=" in names:
            raise Refused(400, "argv, cwd or env: a NUL, or a variable's name with '='")
        return message


def same_version(version: int) -> None:
    """Raises Refused for another protocol than ours."""
    if version != messages.PROTOCOL_VERSION:
        ours = messages.PROTOCOL_VERSION
        raise Refused(
            409, f"this syncer speaks protocol {ours}, not {version}; install one version"
        )
