"""Loads the model of an index."""

from jclip.errors import JclipError, first_line
from jclip.inference import Model
from jclip.loading import load
from jclip.names import TowerName
from jclip.search.index import Index


def index_model(index: Index, source: str | None, tower: TowerName | None) -> Model:
    """Loads the model that made an index, or one tower of it.

    Args:
      index: the index.
      source: bundle or other source of the model; None for the one that the index names.
      tower: "image" or "text"; None for both.

    Raises:
      JclipError: the model cannot be loaded, or is another one.
    """
    try:
        model = load(source or index.facts.model_source, tower=tower)
    except JclipError as error:
        if source is not None:
            raise
        raise JclipError(
            f"{index.folder}: the model that it names cannot be loaded ({first_line(error)}): give its new place with "
            "--model"
        ) from None
    index.check_model(model)
    return model
