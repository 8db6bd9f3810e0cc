"""Limits on requests. The error that a limit causes names it."""

from dataclasses import dataclass

from jclip.errors import JclipError
from jclip.images.opening import MEGAPIXELS_VARIABLE, max_megapixels
from jclip.ranges import AtLeastOne, Positive, check_ranges


@dataclass(frozen=True)
class Limits:
    """Limits of the service. The same hold for single and for batch requests.

    Raises JclipError if a limit is out of range, or two of them contradict each other.

    Attributes:
      max_body: bytes of a request's body.
      max_items: texts and images in a request; for /classify also labels times templates.
      max_characters: characters of a text. Longer texts than the model's context are truncated, see "truncate".
      max_megapixels: size of an image, in millions of pixels; None for the reader's limit, which depends on the memory.
      max_queue: texts and images that are accepted and not answered, of all requests together.
      max_buffer: bytes of the bodies, and of the files that are sent, of all requests in progress.
      max_results: results of a search that can be reached with "k" and "offset".
      body_seconds: seconds in which a body must arrive.
    """

    max_body: AtLeastOne = 16_000_000
    max_items: AtLeastOne = 256
    max_characters: AtLeastOne = 16_384
    max_megapixels: Positive | None = None
    max_queue: AtLeastOne = 1024
    max_buffer: AtLeastOne = 256_000_000
    max_results: AtLeastOne = 10_000
    body_seconds: Positive = 30.0

    def __post_init__(self) -> None:
        check_ranges(self)
        for small, large in (("max_items", "max_queue"), ("max_body", "max_buffer")):
            if getattr(self, small) > getattr(self, large):
                raise JclipError(
                    f"{small} is {getattr(self, small)}, but {large} is {getattr(self, large)}: raise {large}"
                )
        most = max_megapixels()
        if self.max_megapixels is not None and self.max_megapixels > most:
            raise JclipError(
                f"max_megapixels is {self.max_megapixels:g}, but images of more than {most:g} are not read: lower it, "
                f"or set {MEGAPIXELS_VARIABLE}"
            )

    @property
    def megapixels(self) -> float:
        """Maximum size of an image, in millions of pixels."""
        return max_megapixels() if self.max_megapixels is None else self.max_megapixels
