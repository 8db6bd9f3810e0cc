"""Estimates the time of a step from its account: products, memory traffic and links at the rates of the data sheets."""

from collections.abc import Sequence
from dataclasses import dataclass

from jclip.accelerators.account import Account
from jclip.accelerators.collectives import Collective
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
    "Collectives send over all of a device's links, one after another.",
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
        whose compiler does not count them. This is closer, because the count includes arithmetic other than products,
        and the rates that small products reach.
    """

    products: float
    traffic: float
    links: float
    peak: float
    compiler: float | None

    @property
    def seconds(self) -> float:
        """Seconds of the step: the sum of the three parts."""
        return self.products + self.traffic + self.links

    @property
    def closest(self) -> float:
        """Seconds of the step by the compiler's own count where there is one, otherwise the sum of the three parts."""
        return self.seconds if self.compiler is None else self.compiler

    @property
    def utilisation(self) -> float:
        """Share of the peak rate that the products reach (MFU, recomputed products included)."""
        return self.peak / self.closest if self.closest else 0.0


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
    linked = place.devices if target.platform == "tpu" else place.devices // place.hosts
    links = sum(each.times * _seconds(each, target, linked) for each in account.collectives)
    own = compiler + links if account.cycles and target.clock else None
    return Estimate(products, traffic, links, account.products / target.peak, own)


def assumptions(estimates: Sequence[Estimate]) -> tuple[str, ...]:
    """Returns the sentences for the user about the estimates of one target; none without estimates."""
    if not estimates:
        return ()
    if any(each.compiler is not None for each in estimates):
        return (*_BY_CYCLES, *_ALWAYS, _OMITTED_BY_CYCLES)
    return (_BY_RATES, *_ALWAYS, _OMITTED_BY_RATES)


def _seconds(collective: Collective, target: Target, linked: int) -> float:
    """Returns the seconds of one execution; `linked` devices with successive numbers have links to each other.

    What a ring sends from one host to the next is spread over the network of all its devices in the host. In a permute
    or an all-to-all, each device uses its own share of the network.
    """
    if not collective.spans(linked):
        return collective.wire / target.link
    sharing = collective.fewest_together(linked) if collective.is_ring else 1
    return collective.wire / min(target.link, sharing * target.network)
