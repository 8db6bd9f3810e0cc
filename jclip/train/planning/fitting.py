"""Searches for changes that make a run fit the memory of its devices and keep its numbers, by compiling it.

They are tried in the order of their cost: splitting the parameters over all devices, recomputing more activations, and
micro-batches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jclip.config import leaves, to_json
from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.stages import Stage
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import devices_of
from jclip.train.configuration import Run
from jclip.train.planning.plan import assemble_shapes, device_bytes

_WORTH = 0.98  # a change that leaves more than this of the memory is not worth what it costs

Proposal = Callable[[Run, set[int]], Run | None]
"""(run, the stages that do not fit) -> the run that needs less, or None where this has been taken to its end."""


@dataclass(frozen=True)
class Fit:
    """Whether the stages of a run fit the devices, and what makes them.

    Attributes:
      memory: bytes of one device.
      needs: bytes that each stage takes of it, as configured.
      overrides: words for the command line that change the run to need less; none where all fits, or nothing helps.
      then: bytes that each stage takes with them.
    """

    memory: int
    needs: tuple[int, ...]
    overrides: tuple[str, ...]
    then: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether all stages fit, with the overrides."""
        return max(self.then) <= self.memory


def compiled_need(run: Run, index: int, tokenizer: Tokenizer | None = None) -> int:
    """Bytes that a stage takes of a device, by the compiler; the tokenizer as for `plan`.

    Raises:
      JclipError: the run is not possible, or not on these devices.
    """
    return device_bytes(assemble_shapes(run, index, devices_of(run), tokenizer))


def fit(run: Run, memory: int, needs: tuple[int, ...], need: Callable[[Run, int], int] = compiled_need) -> Fit:
    """The first changes under which every stage fits, or else those with which they need the least.

    Only stages that do not fit are looked at anew, and at the end the others once.

    Args:
      run: the configuration.
      memory: bytes of one device.
      needs: bytes that each stage takes, as `plan` found them.
      need: tells what a stage of a changed run takes.
    """
    best, now, old = run, dict(enumerate(needs)), set[int]()
    micro_batches = (partial(_micro_batches, index) for index in now)
    proposals: tuple[Proposal, ...] = (_split, _remat, *micro_batches)
    for propose in proposals:
        while over := {index for index, size in now.items() if size > memory}:
            changed = propose(best, over)
            touched = {index for index in now if _differs(best, changed, index)} if changed else set()
            try:
                found = {index: need(changed, index) for index in touched & over} if changed else {}
            except JclipError:  # not possible in this run, or on these devices
                break
            if changed is None or all(size > _WORTH * now[index] for index, size in found.items()):
                break
            best, now, old = changed, now | found, (old | touched) - found.keys()
    for index in old:
        now[index] = need(best, index)
    return Fit(memory, needs, _overrides(run, best), tuple(now.values()))


def _split(run: Run, over: set[int]) -> Run | None:
    sizes = make_mesh(run.mesh).shape
    if sizes["data"] == 1:
        return None
    return replace(run, mesh=MeshShape(data=1, fsdp=sizes["data"] * sizes["fsdp"], tensor=sizes["tensor"]))


def _remat(run: Run, over: set[int]) -> Run | None:
    if run.remat == "layers":
        return None
    return replace(run, remat="dots" if run.remat == "none" else "layers")


def _micro_batches(index: int, run: Run, over: set[int]) -> Run | None:
    if index not in over:
        return None
    return _with_stages(run, {index}, lambda stage: replace(stage, micro_batches=2 * stage.micro_batches))


def _with_stages(run: Run, chosen: set[int], change: Callable[[Stage], Stage]) -> Run:
    return replace(
        run, stages=tuple(change(stage) if index in chosen else stage for index, stage in enumerate(run.stages))
    )


def _differs(run: Run, changed: Run, index: int) -> bool:
    """Whether a stage may take another amount of memory in the changed run."""
    return run.stages[index] != changed.stages[index] or run != replace(changed, stages=run.stages)


def _overrides(run: Run, changed: Run) -> tuple[str, ...]:
    before = dict(leaves(to_json(run)))
    return tuple(
        word
        for name, value in leaves(to_json(changed))
        if before[name] != value
        for word in (f"--{name.replace('_', '-')}", str(value))
    )
