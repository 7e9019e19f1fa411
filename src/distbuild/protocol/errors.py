"""The tree of errors that cross a boundary between our parts.

Three kinds, by what the catcher has to do: the other side broke the protocol (refuse it), something
about this machine or network is wrong (try elsewhere, then compile locally), or the user's set-up
is wrong (one line, exit 2). A bug of ours is none of them and stays an ordinary exception.
"""


class DistBuildError(Exception):
    """Base of every error that dist_build raises on purpose."""


class ConfigError(DistBuildError):
    """The set-up is wrong; the message names file, key and expectation. Ends the process with 2."""


class ProtocolError(DistBuildError):
    """The peer sent what is not allowed: malformed, too large, or outside its sandbox."""


class InfrastructureError(DistBuildError):
    """A network, disk or peer failure, no verdict of a compiler: try elsewhere, then locally."""


class CompilerCrashed(InfrastructureError):
    """The compiler ended by a fault of its own: every machine's would, so it is not tried again."""


class NamesItsPlace(InfrastructureError):
    """The object tells where it was compiled, as every machine's but the dev box's would."""


class UnseenInputs(InfrastructureError):
    """A worker cannot tell which files the assembler read by its own directives."""


class Unauthorized(ProtocolError):
    """The peer has no token, or a wrong one, for the role that this request needs."""


class TooMuchAtOnce(InfrastructureError):
    """More than there is memory for: to be asked again a little later."""
