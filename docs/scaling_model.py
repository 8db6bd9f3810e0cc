"""A model of a step's memory and time on any number of devices, fitted to compiled losses and steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from docs.compiled import Series
from docs.losses import WIDTH, Costs, columns, precise_peak, products, rounds
from jclip.accelerators.targets import Place, parse_place
from jclip.losses.contrastive import Impl

LATENCY = 10e-6
"""Seconds of latency of a collective: an assumption, because vendors do not publish it."""

_UPDATE = 7  # AdamW reads the parameters, their gradients and two slots, and writes all but the gradients


@dataclass(frozen=True)
class LossModel:
    """Memory and communication of one form of the loss, fitted to compiled losses.

    Attributes:
      logits: bytes, in units of the float32 logits that a device holds at once.
      features: bytes, in units of the float32 features that a device holds: those of all texts in the form "dense", and
        those of its own pairs in the others.
      fixed: bytes that do not depend on the batch, such as the workspace of a GPU's library.
      sent: bytes that a device sends, in units of the float32 features of all other devices' texts.
      collectives: collectives per round.
      error: largest relative difference of the memory to that of a compiled loss.
    """

    form: Impl
    logits: float
    features: float
    fixed: float
    sent: float
    collectives: float
    error: float

    def needed(self, pairs: int, devices: int, width: int = WIDTH) -> float:
        """Returns the bytes that the loss needs on one device."""
        return float(np.dot(_units(self.form, pairs, devices, width), (self.logits, self.features, self.fixed)))

    def wire(self, pairs: int, devices: int, width: int = WIDTH) -> float:
        """Returns the bytes that a device sends."""
        return self.sent * 4 * width * pairs * (devices - 1)

    def waits(self, pairs: int, devices: int) -> float:
        """Returns the seconds of latency of its collectives."""
        return LATENCY * self.collectives * rounds(self.form, pairs, devices) if devices > 1 else 0.0


def _units(form: Impl, pairs: int, devices: int, width: int) -> tuple[float, float, float]:
    held = columns(form, pairs, devices)
    return 4.0 * pairs * held, 4.0 * width * (held if form == "dense" else pairs), 1.0


def fitted(costs: Costs, form: Impl, platform: str) -> LossModel | None:
    """Returns the model of a form, fitted to the losses of a platform's compiler; None if fewer than 4 are compiled."""
    known = [
        (key.pairs, place.devices, cost)
        for key, cost in sorted(costs.items())
        if key.form == form and (place := parse_place(key.place)).target.platform == platform and place.devices > 1
    ]
    if len(known) < 4:
        return None
    units = np.array([_units(form, pairs, devices, WIDTH) for pairs, devices, _ in known])
    needed = np.array([cost.needed for *_, cost in known], float)
    scales = units.max(axis=0)
    factors = nnls(units / scales / needed[:, None], np.ones(len(known)))[0] / scales  # least relative errors
    sent = max(sum(cost.sent.values()) / (4 * WIDTH * pairs * (devices - 1)) for pairs, devices, cost in known)
    each = max(sum(cost.times.values()) / rounds(form, pairs, devices) for pairs, devices, cost in known)
    logits, features, fixed = factors.tolist()
    return LossModel(form, logits, features, fixed, sent, each, float(np.max(np.abs(units @ factors / needed - 1))))


@dataclass(frozen=True)
class Scaled:
    """Memory and time of a stage's step on any number of devices of a target.

    With "fsdp", compilers write other programs for more than eight devices than for eight. Those are as with "data",
    but the state, gradients and the work of the optimizer are divided among the devices.

    Attributes:
      series: compiled steps, with the loss in the form "ring".
      forms: models of all forms.
      replicated: if `series` has the mesh "fsdp", the steps with "data"; otherwise None.
    """

    series: Series
    forms: Mapping[Impl, LossModel]
    replicated: Series | None = None

    def possible(self, devices: int) -> bool:
        """Returns True if the target can be had with exactly this number of devices."""
        shape = self.series.target.arrangement.with_devices(devices)
        return shape is not None and Place(self.series.target, shape).devices == devices

    def needed(self, form: Impl, pairs: int, devices: int) -> float:
        """Returns the bytes that a device needs.

        Adds the memory that the loss needs beyond that of the compiled steps, as if it were needed at their peak.
        """
        compiled = self.forms["ring"].needed(pairs, self.series.devices)
        more = self.forms[form].needed(pairs, devices) - compiled
        return self._step(pairs, devices) + max(more, 0.0)

    def fits(self, form: Impl, pairs: int, devices: int) -> bool:
        """Returns True if a device needs no more memory than a run leaves to a step."""
        return self.needed(form, pairs, devices) <= self.series.room

    def _step(self, pairs: int, devices: int) -> float:
        """Returns the bytes that a device needs with the loss of the compiled steps."""
        if self.replicated is None or devices <= self.series.devices:
            return self.series.needed(pairs, devices)
        # What does not depend on the batch: the state, and the gradients that exist at the step's peak.
        divided = self.replicated.needed(0, devices)
        return self.replicated.needed(pairs, devices) - divided + divided / devices

    def _computing(self, pairs: int, devices: int) -> float:
        """Returns the seconds without communication with the loss of the compiled steps."""
        if self.replicated is None or devices <= self.series.devices:
            return self.series.computing(pairs)
        update = _UPDATE * self.series.first.gradients / self.series.target.bandwidth
        return self.replicated.computing(pairs) - update + update / devices

    def computing(self, form: Impl, pairs: int, devices: int) -> float:
        """Returns the seconds without communication, with the loss's products at the rate of full precision."""
        target, cycles = self.series.target, self.series.times(pairs).cycles
        # Subtracts the loss of the compiled steps: cycles know the rate of full precision, and the roofline does not.
        compiled = products(pairs, self.series.devices) / (precise_peak(target) if cycles else target.peak)
        share = 0.75 if form == "dense" else 1.0  # it keeps the logits for the backward pass
        return self._computing(pairs, devices) - compiled + share * products(pairs, devices) / precise_peak(target)

    def links(self, form: Impl, pairs: int, devices: int) -> float:
        """Returns the seconds of communication without latencies: gradients, parameters, and the loss."""
        if devices == 1:
            return 0.0
        kind = "collective-permute" if form == "ring" else "all-gather"
        loss = self.forms[form].wire(pairs, devices) / self.series.rate(kind, devices)
        return self.series.links(0, devices) + loss

    def seconds(self, form: Impl, pairs: int, devices: int) -> float:
        """Returns the seconds of a step, latencies of the loss included."""
        waits = self.forms[form].waits(pairs, devices)
        return self.computing(form, pairs, devices) + self.links(form, pairs, devices) + waits
