"""`jclip configs`, and the argument CONFIG: a recipe's name or a Python file, with options for its fields."""

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jclip.cli.options import explain, option_names, read, read_known, refuse
from jclip.configs import catalogue
from jclip.configs.loading import Recipe, open_recipe
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
    options: type[Options],
    arguments: Sequence[str],
    command: str,
    prepare: Callable[[Options], int | None] = lambda options: None,
) -> tuple[Options, Run]:
    """Reads the options of `jclip COMMAND` and the run of its CONFIG, with the overrides applied.

    The dataclass `options` has `config: str` (positional) and `reduced: bool`. `prepare` is called with the options
    before the configuration is loaded; it may return the number of devices for which to reduce the run.

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
        recipe = open_recipe(config)
        explain(options, prog)  # the options' help first, then the configuration's
        if choices := _choices(recipe):
            explain(choices, f"{prog} {config}")
        explain(_FIELDS, f"{prog} {config}", default=recipe.build())
        sys.exit(0)
    chosen, rest = read_known(options, arguments, prog)
    devices = prepare(chosen)
    recipe = open_recipe(chosen.config)
    known, made = option_names(options), {}
    if choices := _choices(recipe):
        read_choices, rest = read_known(choices, rest, prog)
        known, made = known + option_names(choices), vars(read_choices)
    run = recipe.build(**made)
    if chosen.reduced:
        # The processes of one run write the same files, so each has its own folder.
        mine = "" if is_first_process() else f"-{process_index()}"
        run = reduce(run, Path("runs") / "reduced" / run.name / f"inputs{mine}", devices)
    changed, unknown = read_known(_FIELDS, rest, prog, default=run)
    if unknown:
        refuse(prog, unknown, known + option_names(run))
    check_names(changed)  # before a name becomes a folder's
    return chosen, changed


_FIELDS = tyro.conf.AvoidSubcommands[Run]


def _choices(recipe: Recipe) -> Any:
    """Returns the parameters of `config()` as a dataclass, whose fields become options; None without parameters.

    Raises JclipError if a parameter has the name of a field of the run, which is an option already.
    """
    parameters = inspect.signature(recipe.config).parameters.values()
    if not parameters:
        return None
    if taken := {each.name for each in parameters} & {field.name for field in dataclasses.fields(Run)}:
        raise JclipError(f"{recipe.name}: config() has a parameter {min(taken)}, which is a field of Run: rename it")
    hints = typing.get_type_hints(recipe.config)
    fields = []
    for each in parameters:
        kind = hints.get(each.name, str)
        default = dataclasses.MISSING if each.default is each.empty else each.default
        fields.append((each.name, kind, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass("Choices", fields, frozen=True)
    made.__doc__ = inspect.getdoc(recipe.config)
    return made
