"""The one kind of error that is meant for the person at the keyboard."""


class JclipError(ValueError):
    """Something the user can mend: one or two lines that name the thing and say what to do.

    The command line prints the message without a traceback and exits with code 1. Everything else that escapes is a
    defect of ours, and keeps its traceback.
    """
