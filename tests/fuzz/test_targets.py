"""Targets of the fuzzer: they read their seeds, and bytes that are a little wrong. `make test-full` fuzzes longer."""

import random

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_its_seeds_and_survives_damage(name, tmp_path, request):
    ready = TARGETS[name](tmp_path)
    request.addfinalizer(ready.close)
    seeds = list(ready.seeds)
    for seed in seeds:
        ready.read(seed)
    rng, read = random.Random(name), ready.guarded
    for _ in range(40):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 3, 30))):
            start = rng.randrange(len(data) + 1)
            data[start : start + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
        read(bytes(data))
