"""One of several processes that search together: `python -m tests.evaluate.over_processes`, with JCLIP_* set."""

import json

import jax
import numpy as np

from jclip.evaluate.metrics import nearest, recall
from jclip.evaluate.metrics.logistic_regression import fit
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.metrics.recall import query_hits, topk
from jclip.parallel.mesh import make_mesh
from jclip.parallel.processes import connect


def found() -> dict:
    """Returns what every process, and one process alone, must find on 61 rows, a number that no mesh divides."""
    draw = np.random.default_rng(0)
    query, gallery = draw.normal(size=(40, 6)), draw.normal(size=(61, 6))
    positives = Positives(np.stack([np.arange(40), np.arange(40) * 7 % 61], axis=1), 40, 61)
    learnt = fit(gallery.astype(np.float32), np.arange(61) % 3, 3, 1.0)
    return {
        "hits": query_hits(query, gallery, positives, (1, 5)).hits_qk.sum(axis=0).tolist(),
        "best": topk(query, gallery, 5)[0].tolist(),
        "weights": learnt.weights_dc.round(3).tolist(),
    }


if __name__ == "__main__":
    connect()
    recall._BLOCK, nearest.QUERY_BLOCK, nearest.GALLERY_BLOCK = 64, 16, 3
    with jax.set_mesh(make_mesh()):
        print(json.dumps(found()))
