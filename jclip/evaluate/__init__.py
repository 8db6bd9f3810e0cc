"""Evaluation: recall, zero-shot classification and linear probes, of features or of a loaded model.

    images, texts = model.encode_image(pictures), model.encode_text(captions)
    jclip.evaluate.recall(images, texts)["mean_recall"]                    # recall of features
    jclip.evaluate.zero_shot(model, pictures, ["猫", "狗"], prompts="zh")   # class probabilities
    jclip.evaluate.retrieval(model, "data/muge", protocol="muge").write("results/muge")

Names:
  retrieval: evaluates retrieval on images with captions.
  classification: evaluates zero-shot classification on images sorted by class.
  probe: evaluates linear probes on images sorted by class.
  Evaluation: the result of these three, which can write results.json and a report.
  Results, Result: the figures of all tests, and of one test.
  read_results: reads a results.json.
  compare: compares the results of two evaluations; the result can write comparison.json and a report.
  zero_shot: returns class probabilities of images.
  recall: returns R@k of features in both directions, and their mean.
  query_hits: returns the hits of each query in one direction.
  Positives: many-to-many positives of queries in a gallery.
  topk: returns the k nearest gallery rows of each query.
  classifier: returns the class vectors of a zero-shot classifier.
  load_prompts: returns a prompt ensemble.
  fit_probe: fits a linear probe on features.
  LinearProbe: a linear classifier.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.evaluate.metrics.logistic_regression import LinearProbe as LinearProbe
    from jclip.evaluate.metrics.logistic_regression import fit_probe as fit_probe
    from jclip.evaluate.metrics.positives import Positives as Positives
    from jclip.evaluate.metrics.recall import query_hits as query_hits
    from jclip.evaluate.metrics.recall import recall as recall
    from jclip.evaluate.metrics.recall import topk as topk
    from jclip.evaluate.metrics.zero_shot import classifier as classifier
    from jclip.evaluate.prompts import load_prompts as load_prompts
    from jclip.evaluate.results import Result as Result
    from jclip.evaluate.results import Results as Results
    from jclip.evaluate.results import read_results as read_results
    from jclip.evaluate.tasks.classification import classification as classification
    from jclip.evaluate.tasks.classification import zero_shot as zero_shot
    from jclip.evaluate.tasks.evaluation import Evaluation as Evaluation
    from jclip.evaluate.tasks.evaluation import compare as compare
    from jclip.evaluate.tasks.probe import probe as probe
    from jclip.evaluate.tasks.retrieval import retrieval as retrieval

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
