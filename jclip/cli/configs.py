"""`jclip configs`, and the argument CONFIG: a recipe's name or a Python file, with options for its fields."""

import dataclasses
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import tyro

from jclip.cli.options import explain, option_names, read, read_known, refuse
from jclip.config import check_types
from jclip.configs import catalogue
from jclip.console import Console
from jclip.errors import JclipError
from jclip.parallel.processes import is_first_process, process_index
from jclip.plain import print_json
from jclip.train.checks import check_names
from jclip.train.configuration import Run
from jclip.train.planning.reduced import reduce

Options = TypeVar("Options")


@dataclass(frozen=True)
class ConfigsOptions:
    """Lists the recipes that come with jclip. `jclip train NAME` runs one, `jclip plan NAME` explains it.

    Attributes:
      json: print JSON, with each recipe's file: a starting point for your own.
    """

    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs `jclip configs`."""
    options = read(ConfigsOptions, arguments, "jclip configs")
    found = catalogue.recipes()
    if options.json:
        rows = [{"name": name, "title": catalogue.title(file), "file": str(file)} for name, file in found.items()]
        print_json(rows, indent=1)
    else:
        width = max(map(len, found))
        for name, file in found.items():
            Console().tell(f"{name:<{width}}  {catalogue.title(file)}")
    return 0


def parse(
    options: type[Options], arguments: Sequence[str], command: str, prepare: Callable[[Options], None] | None = None
) -> tuple[Options, Run]:
    """Reads the options of `jclip COMMAND` and the run of its CONFIG, with the overrides applied.

    The dataclass `options` has `config: str` (positional) and `reduced: bool`. `prepare` is called with the options
    before the configuration is loaded.

    Raises:
      JclipError: the configuration does not exist or does not build a run.
      SystemExit: bad usage, reported in one line, or --help.
    """
    prog = f"jclip {command}"
    # CONFIG may come after options; tyro wants it first.
    config = next((word for word in arguments if word.endswith(".py") or word in catalogue.recipes()), None)
    if config is not None:
        arguments = [config, *(word for word in arguments if word != config)]
    if config is not None and {"-h", "--help"} & set(arguments):
        loaded = _load(config)
        explain(options, prog)  # the options' help first, then the configuration's
        if choices := _choices(loaded):
            explain(choices, f"{prog} {config}")
        explain(_FIELDS, f"{prog} {config}", default=loaded.build())
        sys.exit(0)
    chosen, rest = read_known(options, arguments, prog)
    if prepare:
        prepare(chosen)
    loaded = _load(chosen.config)
    known, made = option_names(options), {}
    if choices := _choices(loaded):
        read_choices, rest = read_known(choices, rest, prog)
        known, made = known + option_names(choices), vars(read_choices)
    run = loaded.build(**made)
    if chosen.reduced:
        # The processes of one run write the same files, so each has its own folder.
        mine = "" if is_first_process() else f"-{process_index()}"
        run = reduce(run, Path("runs") / "reduced" / run.name / f"inputs{mine}")
    changed, unknown = read_known(_FIELDS, rest, prog, default=run)
    if unknown:
        refuse(prog, unknown, known + option_names(run))
    check_names(changed)  # before a name becomes a folder's
    return chosen, changed


_FIELDS = tyro.conf.AvoidSubcommands[Run]


def load_config(config: str, **choices: Any) -> Run:
    """Returns the run that the `config()` of a Python file or a recipe builds, called with `choices`.

    A file takes precedence over a recipe of the same name. Raises JclipError if there is neither, it has no function
    `config`, or the run is not valid.
    """
    return _load(config).build(**choices)


@dataclass(frozen=True)
class _Loaded:
    name: str
    config: Callable[..., Any]

    def build(self, **choices: Any) -> Run:
        run = _guarded(self.name, lambda: self.config(**choices))
        if not isinstance(run, Run):
            raise JclipError(f"{self.name}: config() must return a jclip.train.Run, not a {type(run).__name__}")
        check_types(run)
        check_names(run)
        return run


def _load(name: str) -> _Loaded:
    path = Path(name)
    if path.is_file():
        module = _guarded(name, lambda: _module(path))
    elif name.endswith(".py"):
        raise JclipError(f"there is no configuration file {name}: `jclip configs` lists the recipes that need no file")
    else:
        catalogue.check_known(name)
        module = _guarded(name, lambda: importlib.import_module(catalogue.module_of(name)))
    return _Loaded(name, _guarded(name, lambda: module.config))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jclip_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise JclipError(f"{path} is not a Python file: a configuration is a .py with a function config()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _choices(loaded: _Loaded) -> Any:
    """Returns the parameters of `config()` as a dataclass, whose fields become options; None without parameters.

    Raises JclipError if a parameter has the name of a field of the run, which is an option already.
    """
    parameters = inspect.signature(loaded.config).parameters.values()
    if not parameters:
        return None
    if taken := {each.name for each in parameters} & {field.name for field in dataclasses.fields(Run)}:
        raise JclipError(f"{loaded.name}: config() has a parameter {min(taken)}, which is a field of Run: rename it")
    hints = typing.get_type_hints(loaded.config)
    fields = []
    for each in parameters:
        kind = hints.get(each.name, str)
        default = dataclasses.MISSING if each.default is each.empty else each.default
        fields.append((each.name, kind, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass("Choices", fields, frozen=True)
    made.__doc__ = inspect.getdoc(loaded.config)
    return made


def _guarded(name: str, work: Callable[[], Any]) -> Any:
    """Calls `work` on a configuration's code, with standard output sent to standard error.

    Raises JclipError, in one line, if the code raises.
    """
    sys.path.insert(0, str(Path.cwd()))  # configurations may import their neighbours
    try:
        with redirect_stdout(sys.stderr):  # standard output is for the command's results
            return work()
    except (JclipError, KeyboardInterrupt):
        raise
    except SystemExit as stop:
        raise JclipError(
            f"{name} ends the program (SystemExit: {stop.code}): a configuration only builds a run"
        ) from None
    except BaseException as error:
        words = " ".join(str(error).split())
        raise JclipError(f"{name} cannot be read: {type(error).__name__}{words and ': '}{words}") from error
    finally:
        sys.path.pop(0)
