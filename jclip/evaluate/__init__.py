"""Evaluation: retrieval, zero-shot classification and linear probes, from L2-normalised features.

Names:
  recalls: returns R@k in both directions and their mean.
  recall: returns R@k of queries in a gallery.
  topk: returns the k nearest of a gallery for each query.
  classifier: returns the class weights of a zero-shot classifier.
  probabilities: returns a zero-shot classifier's class probabilities of images.
  mean_per_class: returns the mean of the classes' accuracies.
  learn_probe: returns a linear probe trained on features.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.evaluate.metrics.classification import classifier as classifier
    from jclip.evaluate.metrics.classification import probabilities as probabilities
    from jclip.evaluate.metrics.metrics import mean_per_class as mean_per_class
    from jclip.evaluate.metrics.probe import learn as learn_probe
    from jclip.evaluate.metrics.retrieval import recall as recall
    from jclip.evaluate.metrics.retrieval import recalls as recalls
    from jclip.evaluate.metrics.retrieval import topk as topk

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "recalls": "jclip.evaluate.metrics.retrieval:recalls",
        "recall": "jclip.evaluate.metrics.retrieval:recall",
        "topk": "jclip.evaluate.metrics.retrieval:topk",
        "classifier": "jclip.evaluate.metrics.classification:classifier",
        "probabilities": "jclip.evaluate.metrics.classification:probabilities",
        "mean_per_class": "jclip.evaluate.metrics.metrics:mean_per_class",
        "learn_probe": "jclip.evaluate.metrics.probe:learn",
    },
)
