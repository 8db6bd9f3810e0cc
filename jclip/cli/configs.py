"""Configuration files on the command line: a Python file, and overrides for any of its fields."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TypeVar

import tyro

from jclip.cli.options import explain, known_options, read_known, refuse
from jclip.config import check_types
from jclip.errors import JclipError
from jclip.parallel.processes import is_first_process, process_index
from jclip.train.checks import check_names
from jclip.train.configuration import Run
from jclip.train.planning.reduced import reduce

Options = TypeVar("Options")


def parse(
    options: type[Options], arguments: Sequence[str], command: str, prepare: Callable[[Options], None] | None = None
) -> tuple[Options, Run]:
    """A command's options and the run of its CONFIG, overrides applied.

    Args:
      options: a dataclass with `config: str` (positional) and `reduced: bool`.
      arguments: what stands after the command.
      command: "train", "plan": for the usage line.
      prepare: called with the options before the configuration is read.

    Raises:
      JclipError: the file is missing or builds no run.
      SystemExit: bad usage, said in a line, or --help.
    """
    prog = f"jclip {command}"
    # The file may stand anywhere among the options; tyro wants it first.
    config = next((word for word in arguments if word.endswith(".py")), None)
    if config is not None:
        arguments = [config, *(word for word in arguments if word != config)]
    if config is not None and {"-h", "--help"} & set(arguments):
        explain(options, prog)  # the options' help first, then the fields'
        explain(_FIELDS, f"{prog} {config}", default=load_config(config))
        sys.exit(0)
    chosen, rest = read_known(options, arguments, prog)
    if prepare:
        prepare(chosen)
    run = load_config(chosen.config)
    if chosen.reduced:
        # Processes of one run write the same files, so each has a folder of its own.
        mine = "" if is_first_process() else f"-{process_index()}"
        run = reduce(run, Path("runs") / "reduced" / run.name / f"inputs{mine}")
    changed, unknown = read_known(_FIELDS, rest, prog, default=run)
    if unknown:
        refuse(prog, unknown, known_options(_FIELDS, prog, default=run) + known_options(options, prog))
    check_names(changed)  # before anything takes one for a folder's
    return chosen, changed


_FIELDS = tyro.conf.AvoidSubcommands[Run]


def load_config(file: str) -> Run:
    """The run that a configuration file's `config()` builds.

    Raises:
      JclipError: no such file, no function `config`, or a configuration that cannot be.
    """
    path = Path(file)
    if not path.is_file():
        raise JclipError(f"there is no configuration file {file}: the ones that come with jclip lie in configs/")
    spec = importlib.util.spec_from_file_location(f"jclip_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise JclipError(f"{file} is not a Python file: a configuration is a .py with a function config()")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path.cwd()))  # configurations may import their neighbours
    try:
        with redirect_stdout(sys.stderr):  # standard output is for what the command finds
            spec.loader.exec_module(module)
            run = module.config()
    except (JclipError, KeyboardInterrupt):
        raise
    except SystemExit as stop:
        raise JclipError(
            f"{file} ends the program (SystemExit: {stop.code}): a configuration only builds a run"
        ) from None
    except BaseException as error:
        raise JclipError(f"{file} cannot be read: {_in_a_line(error)}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(run, Run):
        raise JclipError(f"{file}: config() must return a jclip.train.configuration.Run, not a {type(run).__name__}")
    check_types(run)
    check_names(run)
    return run


def _in_a_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
