import numpy as np
import pytest

from benchmarks import serve_load
from benchmarks.serve_load import Load


def load_of(latency, seconds=10.0, **more):
    given = {"lost": [], "wrong": [], "memory": [100, 100, 100, 105, 105, 105], "cpu": 0.6} | more
    return Load(seconds, [latency] * 30, **given)


def test_a_good_run_has_no_faults(capsys):
    assert serve_load.report(load_of(0.1), load_of(0.2, 16.0)) == []
    out = capsys.readouterr().out
    assert "| as usual | 30 | 3.0 | 100 | 100 | 20 | 0 | 0 | 0 MB, x1.05 |" in out and "throughput: x1.60" in out


@pytest.mark.parametrize(
    ("batched", "single", "fault"),
    [
        (load_of(0.1), load_of(0.2, 14.0), "throughput grows only x1.40, not x1.5"),
        (load_of(0.2), load_of(0.2, 16.0), "the 95th percentile is not below that of single requests"),
        (load_of(0.1, lost=["a", "b"]), load_of(0.2, 16.0), "2 lost, the first: a"),
        (load_of(0.1), load_of(0.2, 16.0, wrong=["c"]), "1 wrong, the first: c"),
        (load_of(0.1, memory=[100] * 6 + [120] * 3), load_of(0.2, 16.0), "memory grew x1.20"),
    ],
)
def test_what_does_not_hold_is_reported(batched, single, fault):
    assert serve_load.report(batched, single) == [fault]


def test_answers_are_compared():
    wanted = np.zeros(4, np.float32)
    answer = {"data": [{"embedding": "AAAAAAAAAAAAAAAAAAAAAA=="}]}
    assert serve_load._fault(200, answer, wanted) == ""
    assert serve_load._fault(200, answer, wanted + 1e-4).startswith("differs by 0.0001")
    assert serve_load._fault(200, answer, wanted[:3]).startswith("differs by inf")
    assert serve_load._fault(200, answer, None) == "damaged image: 200"
    assert serve_load._fault(422, {"error": {"code": "invalid_image"}}, None) == ""
    assert serve_load._fault(429, {}, wanted).startswith("status 429")


@pytest.mark.slow
def test_three_seconds_of_load(place):
    """Loses nothing, and answers as the model does. The figures need a larger model, and a quiet machine."""
    bundle = str(place / "bundle")
    load = serve_load.run(bundle, serve_load.inputs_of(bundle), clients=8, seconds=3, batch=8)
    assert (load.lost, load.wrong) == ([], []) and len(load.latencies) > 100 and load.growth < 1.2
