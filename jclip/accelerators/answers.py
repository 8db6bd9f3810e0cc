"""Answers of a compiler's process."""

from jclip.errors import JclipError

PROGRESS, RESULT, ERROR, FAILED, BUG = "progress", "result", "error", "failed", "bug"
"""Kinds of answers: a description of the current step, which is not the last answer; the result; the message of a
JclipError; the message of a CompilerFailed; the traceback of another exception."""


class CompilerFailed(JclipError):
    """Error for a compiler that crashes, refuses a program, or exceeds a limit of time or memory."""
