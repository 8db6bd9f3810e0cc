"""Loads the model of an index, or of a table in a vector database."""

from jclip.errors import JclipError, first_line
from jclip.inference import Model
from jclip.loading import load
from jclip.names import TowerName
from jclip.search.index import Index, IndexFacts


def index_model(index: Index, source: str | None, tower: TowerName | None) -> Model:
    """Loads the model that made an index, as `named_model` does. Raises JclipError also if it is another one."""
    model = named_model(index.facts, index.folder, source, tower)
    index.check_model(model)
    return model


def named_model(facts: IndexFacts, place: object, source: str | None, tower: TowerName | None) -> Model:
    """Loads the model that an index names, or one tower of it.

    Args:
      facts: facts of the index.
      place: the index, for errors.
      source: bundle or other source of the model; None for the one that the index names.
      tower: "image" or "text"; None for both.

    Raises:
      JclipError: the model cannot be loaded.
    """
    try:
        return load(source or facts.model_source, tower=tower)
    except JclipError as error:
        if source is not None:
            raise
        raise JclipError(
            f"{place}: the model that it names cannot be loaded ({first_line(error)}): give its new place with --model"
        ) from None
