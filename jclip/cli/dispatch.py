"""Chooses a command or a task by the first argument; the module of a command is imported when it runs."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from jclip.names import suggestion
from jclip.plain import complain, say


def dispatch(prog: str, prefix: str, commands: Mapping[str, str], arguments: Sequence[str], usage: str) -> int:
    """Runs `main` of module `prefix` + command and returns its exit code; 2 for an unknown command.

    Without arguments, or for --help, it prints `usage`, with {} replaced by one line for each command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, commands))
        say(usage.replace("{}", "\n".join(f"  {name:<{width}}  {what}" for name, what in commands.items())))
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in commands:
        complain(f"{prog} has no command {command!r}: {suggestion(command, commands)}")
        return 2
    code: int = import_module(f"{prefix}{command}").main(rest)
    return code
