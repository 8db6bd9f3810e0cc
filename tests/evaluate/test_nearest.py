"""Nearest neighbours over the mesh, in blocks, on shards of any size: the figures of the whole matrix in float64."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jclip.evaluate.metrics import nearest, recall
from jclip.evaluate.metrics.nearest import candidates
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.metrics.recall import query_hits, topk
from jclip.parallel.mesh import MeshShape, make_mesh
from tests.evaluate.cn_clip_data import ROOT
from tests.evaluate.over_processes import found


@pytest.fixture(params=[None, MeshShape(), MeshShape(data=2, fsdp=2, tensor=2)], ids=["one device", "8", "2x2x2"])
def _devices(request):
    if request.param is None:
        yield
        return
    with jax.set_mesh(make_mesh(request.param)):
        yield


def features(rows, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def hits_both_ways(monkeypatch, query, gallery, positives, k=5):
    """Returns (hits, indices) twice: from the whole matrix, and from the devices in small blocks."""
    found = []
    for block in (recall._BLOCK, 64):
        monkeypatch.setattr(recall, "_BLOCK", block)
        monkeypatch.setattr(nearest, "QUERY_BLOCK", 16)
        monkeypatch.setattr(nearest, "GALLERY_BLOCK", 3)
        found.append((query_hits(query, gallery, positives, (1, 5)).hits_qk, topk(query, gallery, k)[0]))
    return found


@pytest.mark.usefixtures("_devices")
@pytest.mark.parametrize("gallery", [5, 61, 64])  # fewer than devices, an uneven number, an even one
def test_any_number_of_rows(monkeypatch, gallery):
    query = features(40)
    pairs = np.stack([np.arange(40), np.arange(40) * 7 % gallery], axis=1)
    direct, blocks = hits_both_ways(monkeypatch, query, features(gallery, seed=1), Positives(pairs, 40, gallery))
    np.testing.assert_array_equal(blocks[0], direct[0])
    np.testing.assert_array_equal(blocks[1], direct[1])


@pytest.mark.usefixtures("_devices")
def test_neighbours_closer_than_float32_resolves_are_ordered_exactly(monkeypatch):
    # 40 neighbours of each query, closer than float32 resolves: more than there are candidates.
    angles = 0.5 + 1e-4 * np.sqrt(np.arange(1, 41)) * 1e-2
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)[::-1]
    query = np.repeat([[1.0, 0.0]], 30, axis=0)
    positives = Positives(np.stack([np.arange(30), np.arange(30)], axis=1), 30, 40)
    direct, blocks = hits_both_ways(monkeypatch, query, gallery, positives)
    assert direct[1][0].tolist() == [39, 38, 37, 36, 35]
    np.testing.assert_array_equal(blocks[1], direct[1])
    np.testing.assert_array_equal(blocks[0], direct[0])
    assert direct[0].sum() == 0  # none of the first 30 is among the best 5, and the devices alone cannot know


@pytest.mark.usefixtures("_devices")
def test_ties_count_as_with_the_whole_matrix(monkeypatch):
    gallery = np.repeat(np.eye(6), 10, axis=0)
    positives = Positives.from_keys(np.arange(40) % 6, np.arange(60) // 10)
    direct, blocks = hits_both_ways(monkeypatch, features(40), gallery, positives)
    np.testing.assert_array_equal(blocks[0], direct[0])
    np.testing.assert_array_equal(blocks[1], direct[1])
    everything = np.ones((60, 6))
    one_each = Positives(np.stack([np.arange(40), np.arange(40)], axis=1), 40, 60)
    hits = hits_both_ways(monkeypatch, features(40), everything, one_each)[1][0]
    np.testing.assert_allclose(hits, np.tile([1 / 60, 5 / 60], (40, 1)))


@pytest.mark.usefixtures("_devices")
def test_ordinary_features_need_no_exact_recomputation(monkeypatch):
    monkeypatch.setattr(recall, "_BLOCK", 64)
    monkeypatch.setattr(Positives, "rows", None)  # would be called to recompute a whole row of scores
    pairs = np.stack([np.arange(120), np.arange(120)], axis=1)
    query, gallery = features(120, width=16), features(300, width=16, seed=1)
    gallery[:60] = query[:60] + 0.5 * gallery[:60]
    assert 0.2 < query_hits(query, gallery, Positives(pairs, 120, 300), (1, 5)).hits_qk[:, 0].mean() < 0.6


@pytest.mark.usefixtures("_devices")
def test_scores_that_are_left_out_are_below_the_bound():
    query, gallery = unit(features(33)), unit(features(70, seed=2))
    seen = np.zeros(33, bool)
    for rows, indices, bound in candidates(query, gallery, 4):
        scores = query[rows] @ gallery.T
        left = np.ones(scores.shape, bool)
        np.put_along_axis(left, indices, False, axis=1)
        assert (np.where(left, scores, -1).max(axis=1) <= bound).all()
        assert (bound - np.sort(scores, axis=1)[:, -4] < 1e-5).all()  # and it is a tight one
        seen[rows] = True
    assert seen.all()


def test_pairs_by_hand():
    positives = Positives([(0, 2), (2, 0), (2, 2), (0, 2)], 3, 4)
    assert positives.pairs_p2.tolist() == [[0, 2], [2, 0], [2, 2]]
    assert positives.counts_q.tolist() == [1, 0, 2]
    assert positives.swapped().counts_q.tolist() == [1, 0, 2, 0]
    assert positives.rows(np.array([2, 1])).tolist() == [[True, False, True, False], [False] * 4]
    assert positives.take(np.array([2, 0])).pairs_p2.tolist() == [[0, 0], [0, 2], [1, 2]]
    keyed = Positives.from_keys(np.array([5, 7, 5]), np.array([7, 5, 9, 5]))
    assert keyed.pairs_p2.tolist() == [[0, 1], [0, 3], [1, 0], [2, 1], [2, 3]]
    with pytest.raises(ValueError, match=r"pair \(1, 4\) is not among 3 queries and 4"):
        Positives([(1, 4)], 3, 4)


def test_several_processes_find_what_one_does():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"  # of two counts the last one counts
    common = {**os.environ, "XLA_FLAGS": flags, "JCLIP_COORDINATOR": address}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluate.over_processes"],
            cwd=ROOT,
            env={**common, "JCLIP_PROCESSES": "2", "JCLIP_PROCESS": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    alone = found()
    for words in said:
        together = json.loads(words.strip().splitlines()[-1])
        np.testing.assert_allclose(together.pop("weights"), alone["weights"], atol=2e-3)
        assert together == {name: alone[name] for name in ("hits", "best")}
