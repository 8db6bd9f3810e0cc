"""Our tables and configurations against the makers' classes at full size: every key and shape, without memory."""

import math
import re

import pytest
import torch

from jclip.conversion.families import detect, family_named, respelt
from tests.conversion import full_size, real_models
from tests.models.test_zoo import COUNTS, TEXT_COUNTS

POOLER = {"pooler.dense.weight", "pooler.dense.bias"}
# Keys of the classes that we drop; no other may be missing.
DROPPED = {"bert": POOLER, "xlm-r": POOLER}
COUNTER = re.compile(r"visual\.(.*\.)?(bn[123]|downsample\.1)\.num_batches_tracked")


@pytest.mark.parametrize(("name", "family"), real_models.REAL)
def test_every_key_and_shape_is_the_real_ones(name, family):
    kind = family_named(family)
    with torch.device("meta"):
        model = real_models.build(name, family)
    real = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    dropped = {key for key in real if key in DROPPED.get(family, ()) or COUNTER.fullmatch(key)}
    assert dropped >= DROPPED.get(family, set())
    assert bool(dropped) == (family in DROPPED or name.endswith("rn50"))
    for key in dropped:
        assert any(re.fullmatch(pattern, key) for pattern, _ in kind.dropped), key
    ours = {key: tensor.shape for key, tensor in full_size.tensors(name, family).items()}
    assert ours == {respelt(key, kind): shape for key, shape in real.items() if key not in dropped}

    assert detect(real, {}, torchscript=family == "openai-clip") is kind
    count = sum(math.prod(value.shape) for key, value in model.named_parameters() if key not in dropped)
    assert count == (COUNTS | TEXT_COUNTS)[name]


@pytest.mark.parametrize(("name", "tensors"), [("altclip", 787), ("altclip-m9", 787), ("altclip-m18", 915)])
def test_altclip_has_the_published_number_of_tensors(name, tensors):
    with torch.device("meta"):
        real = list(real_models.build(name, "altclip").parameters())
    assert len(real) == len(full_size.tensors(name, "altclip")) == tensors


def test_every_published_model_is_covered():
    assert {name for name, _ in real_models.REAL} == COUNTS.keys() | TEXT_COUNTS.keys()
