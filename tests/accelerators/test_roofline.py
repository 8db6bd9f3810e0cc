"""Estimates of time, worked by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from jclip.accelerators.account import Account, Work
from jclip.accelerators.collectives import Collective
from jclip.accelerators.roofline import assumptions, estimate, sending_rate

TARGET = SimpleNamespace(platform="cuda", peak=1000.0, bandwidth=100.0, link=50.0, network=5.0, clock=0.0)


def place(devices=8, hosts=1, **rates):
    return SimpleNamespace(target=SimpleNamespace(**vars(TARGET) | rates), devices=devices, hosts=hosts)


def test_each_instruction_takes_the_longer_of_products_and_traffic():
    work = (
        Work("a", "fusion", 3, 2000, 100, 0),  # 2 s of products, 1 s of traffic
        Work("b", "fusion", 1, 500, 400, 0),  # 0.5 s, 4 s
    )
    found = estimate(Account(work, (), ()), place())
    assert (found.products, found.traffic, found.links, found.seconds) == (6, 4, 0, 10)
    assert found.utilisation == 0.65


def test_the_compilers_own_cycles():
    """They replace products and traffic where they are known; copies in the background take no time of their own."""
    work = (
        Work("a", "fusion", 3, 2000, 100, 90),
        Work("b", "copy", 2, 0, 400, 0),
        Work("c", "copy-start", 1, 0, 900, 0),
    )
    account = Account(work, (Collective("all-reduce", 1, 50, 50, ((0, 1),)),), ())
    found, without = estimate(account, place(clock=30)), estimate(account, place())
    assert found.seconds == found.compiler == 3 * 90 / 30 + 2 * 400 / 100 + 50 / 50
    assert found.seconds != found.products + found.traffic + found.links == without.seconds
    assert found.utilisation == 3 * 2000 / 1000 / found.compiler
    assert without.compiler is None


def reduce_over(group, kind="all-reduce"):
    return Account((), (Collective(kind, 2, 100, 100, (tuple(group),)),), ())


@pytest.mark.parametrize(
    ("account", "hosts", "platform", "seconds"),
    [
        (reduce_over(range(8)), 1, "cuda", 2 * 100 / 50),
        (reduce_over(range(4)), 2, "cuda", 2 * 100 / 50),
        (reduce_over(range(8)), 2, "cuda", 2 * 100 / (4 * 5)),  # through the network of four devices
        (reduce_over((0, 4)), 2, "cuda", 2 * 100 / 5),
        (reduce_over(range(8), "all-to-all"), 2, "cuda", 2 * 100 / 5),
        (reduce_over(range(8)), 2, "tpu", 2 * 100 / 50),  # links go through the whole slice
    ],
)
def test_links(account, hosts, platform, seconds):
    found = estimate(account, place(hosts=hosts, platform=platform))
    assert found.links == found.seconds == seconds


@pytest.mark.parametrize(
    ("kind", "together", "rate"),
    [
        ("all-reduce", 8, 8 * 5),
        ("all-gather", 16, 50),  # the links are slower
        ("collective-permute", 8, 5),
        ("ragged-all-to-all", 8, 5),
    ],
)
def test_the_rate_between_hosts(kind, together, rate):
    gpu, tpu = SimpleNamespace(**vars(TARGET)), SimpleNamespace(**vars(TARGET) | {"platform": "tpu"})
    assert sending_rate(gpu, kind, several_hosts=True, together=together) == rate
    assert sending_rate(gpu, kind, several_hosts=False, together=together) == 50
    assert sending_rate(tpu, kind, several_hosts=True, together=together) == 50


def test_nothing_takes_no_time():
    found = estimate(Account((), (), ()), place())
    assert (found.seconds, found.utilisation) == (0, 0)


def test_the_sentences_suit_the_estimate():
    by_rates = estimate(Account((), (), ()), place())
    by_cycles = replace(by_rates, compiler=1.0)
    assert assumptions([]) == ()
    rates, cycles = assumptions([by_rates]), assumptions([by_cycles])
    assert cycles == assumptions([by_rates, by_cycles])
    assert "arithmetic other than products" in rates[-1] and "arithmetic other than products" in cycles[0]
    assert "arithmetic other" not in "".join(rates[:-1]) and "arithmetic other" not in "".join(cycles[1:])
