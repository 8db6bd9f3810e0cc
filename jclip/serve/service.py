"""Parts of a running service, which its endpoints share."""

from dataclasses import dataclass
from typing import Any

from jclip.images.preprocess import Orientation
from jclip.serve.background import Job
from jclip.serve.batching import Batcher
from jclip.serve.encoding import Encoding
from jclip.serve.gallery import Gallery
from jclip.serve.limits import Limits
from jclip.serve.metrics import Metrics


@dataclass
class Service:
    """A running service.

    Attributes:
      model: the model.
      limits: limits on requests.
      orientation: treatment of the EXIF orientation of images in requests.
      batcher: the model's thread.
      encoding: queue in front of it.
      metrics: figures for Prometheus.
      gallery: the index; None without one.
      urls: images may be addresses.
      job: embedding of sources into the index; None without one.
    """

    model: Any
    limits: Limits
    orientation: Orientation
    batcher: Batcher
    encoding: Encoding
    metrics: Metrics
    gallery: Gallery | None = None
    urls: bool = False
    job: Job | None = None
