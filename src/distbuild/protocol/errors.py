"""The exceptions that cross a boundary between packages of this project.

Three kinds, by the catcher's reaction: the peer broke the protocol (refuse it), something about
this machine or network is wrong (try elsewhere, then compile locally), or the user's set-up is
wrong (one line, exit 2). A bug of dist_build is none of them and stays an ordinary exception, as
``IllegalTransition`` of the state machines.
"""


class DistBuildError(Exception):
    """Base of every error that dist_build raises on purpose."""


class ConfigError(DistBuildError):
    """The set-up is wrong; the message names file, key and expectation. Ends the process with 2."""


class ProtocolError(DistBuildError):
    """The peer sent something malformed, too large, or outside its sandbox."""


class InfrastructureError(DistBuildError):
    """A network, disk or peer failure, no verdict of a compiler: try elsewhere, then locally."""


class CompilerScript(InfrastructureError):
    """The compiler is a script: variables, PATH and other files decide what it runs."""


class CompilerCrashed(InfrastructureError):
    """The compiler itself crashed: it would on every machine, so no other worker is tried."""


class NamesItsPlace(InfrastructureError):
    """The object contains the worker's own paths; only a compile on the dev box avoids that."""


class UnseenInputs(InfrastructureError):
    """A worker cannot determine which files the assembler read by its own directives."""


class OutsideTree(InfrastructureError):
    """A compile without namespaces read or named a file of the worker outside the client's tree."""


class Unauthorized(ProtocolError):
    """The peer has no token, or a wrong one, for the role that this request needs."""


class TooMuchAtOnce(InfrastructureError):
    """The memory limit is reached: retry a little later."""


class IllegalTransition(Exception):
    """An event that the state of a job or connection does not allow: a bug of the caller. Nothing
    was changed."""
