"""Estimates the time of a step from its account: products, memory traffic and links at the rates of the data sheets."""

from collections.abc import Sequence
from dataclasses import dataclass

from jclip.accelerators.account import Account
from jclip.accelerators.collectives import RINGS, Collective
from jclip.accelerators.targets import Place, Target

_BY_RATES = (
    "Each instruction takes the longer of its products at the peak rate and its traffic at the memory's bandwidth."
)
_BY_CYCLES = (
    "Times come from the compiler's count of cycles, which also has arithmetic other than products, and the rates that "
    "small products reach; communication is added to it.",
    "Where the compiler counts no cycles, and in the times of products and memory alone, each instruction takes the "
    "longer of its products at the peak rate and its traffic at the memory's bandwidth.",
)
_ALWAYS = (
    "The peak rate is that for bfloat16; for float32 on GPUs without bfloat16, whose compiler multiplies in float32.",
    "Collectives run one after another, and each uses all links of a device.",
    "Between hosts with GPUs, reductions and gathers use the network of all their devices in a host, and other "
    "collectives that of one device.",
    "Communication and computation do not overlap.",
)
_OMITTED_BY_RATES = (
    "Not included: lower rates of small or float32 products, arithmetic other than products, latencies, launches of "
    "kernels, and input."
)
_OMITTED_BY_CYCLES = "Not included: latencies of the communication, and input."


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of one step.

    Attributes:
      products: seconds of the instructions for which products take longer than their memory traffic.
      traffic: seconds of the other instructions.
      links: seconds of the communication with other devices.
      peak: seconds of all products at the peak rate.
      compiler: seconds of the step by the compiler's own count of clock cycles, with `links` added; None for targets
        whose compiler does not count them. The count includes arithmetic other than products, and the rates that small
        products reach.
    """

    products: float
    traffic: float
    links: float
    peak: float
    compiler: float | None

    @property
    def seconds(self) -> float:
        """Seconds of the step: `compiler` if it is known, otherwise the sum of products, traffic and links."""
        return self.products + self.traffic + self.links if self.compiler is None else self.compiler

    @property
    def utilisation(self) -> float:
        """Share of the peak rate that the products reach (MFU, recomputed products included)."""
        return self.peak / self.seconds if self.seconds else 0.0


def estimate(account: Account, place: Place) -> Estimate:
    """Returns the estimated time of one step on these devices; see `assumptions`."""
    target = place.target
    products = traffic = compiler = 0.0
    for each in account.work:
        compute, move = each.products / target.peak, each.traffic / target.bandwidth
        if compute >= move:
            products += each.times * compute
        else:
            traffic += each.times * move
        if each.cycles and target.clock:
            compiler += each.times * each.cycles / target.clock
        elif not each.opcode.endswith(("-start", "-done")):  # copies in the background
            compiler += each.times * max(compute, move)
    links = sum(each.times * _seconds(each, place) for each in account.collectives)
    own = compiler + links if account.cycles and target.clock else None
    return Estimate(products, traffic, links, account.products / target.peak, own)


def assumptions(estimates: Sequence[Estimate]) -> tuple[str, ...]:
    """Returns the sentences for the user about the estimates of one target; none without estimates."""
    if not estimates:
        return ()
    if any(each.compiler is not None for each in estimates):
        return (*_BY_CYCLES, *_ALWAYS, _OMITTED_BY_CYCLES)
    return (_BY_RATES, *_ALWAYS, _OMITTED_BY_RATES)


def sending_rate(target: Target, kind: str, *, several_hosts: bool, together: int) -> float:
    """Returns the B/s at which a device sends in a collective of a kind, such as "all-reduce".

    On GPUs, what a ring sends from one host to the next is spread over the network of all its devices in the host. In
    other kinds, such as a permute or an all-to-all, each device uses its own share of the network. All devices of a TPU
    slice have links to each other.

    Args:
      several_hosts: True if devices of several hosts communicate with each other.
      together: smallest number of these devices in one host.
    """
    if target.platform == "tpu" or not several_hosts:
        return target.link
    sharing = together if kind in RINGS else 1
    return min(target.link, sharing * target.network)


def _seconds(collective: Collective, place: Place) -> float:
    """Returns the seconds of one execution."""
    host_devices = place.devices // place.hosts
    rate = sending_rate(
        place.target,
        collective.kind,
        several_hosts=collective.spans(host_devices),
        together=collective.fewest_together(host_devices),
    )
    return collective.wire / rate
