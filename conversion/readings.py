"""Finds the model in a checkpoint by the names of its tensors, whatever they are wrapped in.

A model is saved under torch.compile's "_orig_mod.", under an attribute of a Lightning module, in a nested dict beside
its optimizer, with a head. A reading is one explanation of all that: a prefix and a family. It is taken if it is the
only one. Where a checkpoint holds several models (weights and their moving average, teacher and student), they are
listed, and the user chooses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jclip.conversion.families import FAMILIES, TEXT_ENCODERS, detect, respelt
from jclip.conversion.families.family import Family
from jclip.conversion.rows import Table
from jclip.errors import JclipError
from jclip.io.tensors import shown

Shapes = Mapping[str, tuple[int, ...]]

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts of names without a meaning, wherever they are: of DataParallel, compile, FSDP and Lightning."""
_MOST_READINGS = 16
_LARGEST_HEAD = 20
"""Tensors. More than these beside a text encoder are another tower: then it is a part of something that we lack."""
_TRAINING = re.compile(
    r"optim|(lr_)?sched|(.*_)?rng|(.*_)?random_state|(grad_)?scaler|amp$|callbacks$|loops$", re.IGNORECASE
)
_STATE = "the optimizer's, or other state of the training"
_ADAPTER = re.compile(
    r"(^|\.)(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|modules_to_save|original_module|"
    r"ia3_l|hada_w\d\w*|lokr_w\d\w*|oft_[rR]|vera_lambda_\w)(\.|$)"
)
_SHARDS = {
    "flat_param": "FSDP's flat parameters: save it with StateDictType.FULL_STATE_DICT",
    "single_partition_of_fp32_groups": "DeepSpeed's slices of an optimizer: put them together with its zero_to_fp32.py",
}
_MERGE = "call merge_and_unload() and save the state_dict() of what it returns"


@dataclass(frozen=True)
class Names:
    """The names in a checkpoint.

    Attributes:
      plain: name without WRAPPERS -> name as spelt.
      twins: a second name as spelt of one of these.
    """

    plain: Mapping[str, str]
    twins: Mapping[str, str]

    @classmethod
    def of(cls, spelt: Iterable[str]) -> "Names":
        """Strips the wrappers."""
        found: dict[str, str] = {}
        twins: dict[str, str] = {}
        for name in spelt:
            bare = plain(name)
            if found.setdefault(bare, name) != name:
                twins[bare] = name
        return cls(found, twins)


@dataclass(frozen=True)
class Reading:
    """One model in a checkpoint.

    Attributes:
      family: its kind.
      prefix: of its keys, without WRAPPERS; "" or ending in ".".
      keys: key without prefix and wrappers -> name as spelt, of all that is under the prefix.
      table: the family's mapping table for these keys.
    """

    family: Family
    prefix: str
    keys: Mapping[str, str]
    table: Table = field(repr=False)

    @cached_property
    def layers(self) -> dict[str, set[int]]:
        """Key in the table -> the layers for which there is a tensor; {0} for a key without layers."""
        known = {row.theirs for row in self.table}
        found: defaultdict[str, set[int]] = defaultdict(set)
        for key in self.keys:
            row = _row_of(respelt(key, self.family), known)
            if row:
                found[row[0]].add(row[1])
        return dict(found)

    @cached_property
    def mapped(self) -> frozenset[str]:
        """The keys for which the table has a row."""
        known = {row.theirs for row in self.table}
        return frozenset(key for key in self.keys if _row_of(respelt(key, self.family), known))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names as spelt of the mapped keys."""
        return frozenset(self.keys[key] for key in self.mapped)

    @cached_property
    def whole(self) -> bool:
        """Whether no tensor is missing."""
        stacks: defaultdict[str, list[set[int]]] = defaultdict(list)
        for row in self.table:
            stacks[row.theirs.partition("{i}")[0] if row.stacked else ""].append(self.layers.get(row.theirs, set()))
        return all(one == set(range(len(max(stack, key=len)))) for stack in stacks.values() for one in stack)

    @property
    def spelt_prefix(self) -> str:
        """The prefix with its wrappers, as the file has it."""
        found = {_spelt_prefix(self.keys[key], self.prefix) for key in self.mapped}
        return found.pop() if len(found) == 1 else self.prefix

    def __str__(self) -> str:
        """Words for messages."""
        return f"{shown(self.spelt_prefix) or repr('')} ({self.family.title}, {len(self.mapped)} tensors)"


def find_reading(
    shapes: Shapes,
    config: Mapping[str, Any],
    where: str,
    *,
    openai: bool = False,
    family: Family | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> tuple[Reading, dict[str, str]]:
    """Finds the model.

    Args:
      shapes: name as spelt -> shape.
      config: config.json, empty where there is none.
      where: the checkpoint, for messages.
      openai: whether its container is of the kind in which OpenAI published.
      family: what the user says it is; decides between several models.
      key: the entry of a nested dict in which to look, "ema" or "callbacks.ema"; None for everywhere.
      prefix: of the model's keys, after `key`; None to find out.

    Returns:
      The reading, and {name as spelt: why it is no part of the model} of the other tensors.

    Raises:
      JclipError: there is no model, or there are several, which are listed; or it has adapters that are not merged.
    """
    names = Names.of(shapes)
    inside = _plain_prefix(key) if key is not None else ""
    if inside and not any(name.startswith(inside) for name in names.plain):
        tops = ", ".join(dict.fromkeys(shown(name.partition(".")[0]) for name in shapes))
        raise JclipError(f"{where} has no tensors under --key {key}: it has {tops}")
    found = _readings(names, shapes, config, openai, inside)
    if prefix is not None:
        asked = inside + _plain_prefix(prefix)
        chosen = [reading for reading in found if reading.prefix == asked]
        _check_adapters(names, inside, chosen, where)
        if not chosen:
            raise JclipError(f"{where} has no model under --prefix {prefix!r}: {_others(found)}")
    else:
        chosen = _largest(found)
        _check_adapters(names, inside, chosen, where)
        if not chosen:
            raise _nothing(names, where)
        chosen = _decided(chosen, family)
    if len(chosen) > 1:
        raise JclipError(
            f"{where} holds {len(chosen)} models: {', '.join(map(str, chosen))}: choose one with --prefix, as --prefix "
            f"{chosen[0].spelt_prefix.rstrip('.') or repr('')}"
        )
    (reading,) = chosen
    _check_twins(reading, names, where)
    if all(0 in shapes[name] for name in reading.names):
        raise JclipError(
            f"{where}: all its tensors are empty, as DeepSpeed's ZeRO leaves them: run its zero_to_fp32.py"
        )
    aside = _aside(reading, names, inside, _largest(found))
    if prefix is None:
        _check_alone(reading, aside, where)
    return reading, aside


def plain(name: str) -> str:
    """Returns a name without WRAPPERS.

    >>> plain("_orig_mod.module.visual._orig_mod.conv1.weight")
    'visual.conv1.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def summary(names: Iterable[str]) -> str:
    """Returns the top names of some tensors with how many there are of each, for people.

    >>> summary(["head.weight", "head.bias", "logit_bias"])
    'head (2 tensors), logit_bias'
    """
    counts = Counter(shown(name.partition(".")[0]) for name in names)
    return ", ".join(f"{top} ({count} tensors)" if count > 1 else top for top, count in counts.items())


def _readings(names: Names, shapes: Shapes, config: Mapping[str, Any], openai: bool, inside: str) -> list[Reading]:
    found = []
    for prefix in _prefixes(names.plain, inside):
        keys = {name.removeprefix(prefix): spelt for name, spelt in names.plain.items() if name.startswith(prefix)}
        family = detect({key: shapes[spelt] for key, spelt in keys.items()}, config, openai=openai)
        if family is not None:
            table = family.table([respelt(key, family) for key in keys])
            found.append(Reading(family, prefix, keys, table))
    return found


def _prefixes(names: Collection[str], inside: str) -> list[str]:
    """Prefixes under which the first key of a family's signature is, the shortest first."""
    found: set[str] = set()
    for family in FAMILIES.values():
        anchor = family.signature[0]
        ending = anchor.split(".", 1)[-1]
        for name in names:
            if name.endswith(ending) and name.startswith(inside):
                starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
                found.update(name[:start] for start in starts if respelt(name[start:], family) == anchor)
        if len(found) > _MOST_READINGS:
            break
    return sorted((prefix for prefix in found if prefix.startswith(inside)), key=lambda prefix: (len(prefix), prefix))[
        :_MOST_READINGS
    ]


def _largest(readings: Collection[Reading]) -> list[Reading]:
    """Readings that are no part of another: BERT is one of Chinese-CLIP."""
    return [
        one
        for number, one in enumerate(readings)
        if not any(
            one.names < other.names or (one.names == other.names and at < number) for at, other in enumerate(readings)
        )
    ]


def _decided(readings: list[Reading], family: Family | None) -> list[Reading]:
    """Fewer of several: those of the family that was named, or those without gaps."""
    if len(readings) > 1 and family is not None:
        fitting = [one for one in readings if {respelt(key, family) for key in one.keys}.issuperset(family.signature)]
        readings = fitting or readings
    if len(readings) > 1:
        readings = [one for one in readings if one.whole] or readings
    return readings


def _aside(reading: Reading, names: Names, inside: str, others: Collection[Reading]) -> dict[str, str]:
    """{name as spelt: why} of tensors that are no part of the model.

    What is neither mapped nor expected is a head if it is of a module beside the towers. A tensor of a tower itself
    that has no place, or a bare one beside the logit scale, means another architecture; it stays, and is refused later.
    """
    towers = {respelt(key, reading.family).partition(".")[0] for key in reading.mapped}
    inner = set()
    for key, spelt in reading.keys.items():
        name = respelt(key, reading.family)
        expected = any(re.fullmatch(pattern, name) for pattern, _ in reading.family.dropped)
        if key in reading.mapped or expected or "." not in name or name.partition(".")[0] in towers:
            inner.add(spelt)
    found = {}
    for spelt in (*names.plain.values(), *names.twins.values()):
        bare = plain(spelt)
        if spelt in inner:
            continue
        other = next((one for one in others if one is not reading and spelt in one.names), None)
        if other is not None:
            found[spelt] = f"of another model, {other}"
        elif inside and not bare.startswith(inside):
            found[spelt] = "outside --key"
        elif any(_TRAINING.match(name.partition(".")[0]) for name in (bare, bare.removeprefix(reading.prefix))):
            found[spelt] = _STATE
        elif bare.startswith(reading.prefix):
            found[spelt] = "a head, or another part beside the towers"
        else:
            found[spelt] = "beside the model's weights"
    return found


def _check_alone(reading: Reading, aside: Mapping[str, str], where: str) -> None:
    """Refuses a text encoder that is a part of something larger, a CLIP of a kind that does not convert."""
    if reading.family not in TEXT_ENCODERS:
        return
    beside = [name for name, why in aside.items() if why != _STATE]
    if len(beside) > _LARGEST_HEAD:
        prefix = reading.spelt_prefix.rstrip(".")
        raise JclipError(
            f"{where}: a text encoder, {reading}, is all that converts; beside it are {summary(beside)}: to take it "
            f"alone give --prefix {prefix or repr('')}"
        )


def _check_adapters(names: Names, inside: str, readings: Collection[Reading], where: str) -> None:
    """Refuses LoRA and its kin, unless merged."""
    adapters = [name for name in names.plain if name.startswith(inside) and _ADAPTER.search(name)]
    if not adapters:
        return
    if not readings:
        name = shown(names.plain[adapters[0]])
        raise JclipError(f"{where} holds an adapter ({name}), not merged: load it on its model with PEFT, {_MERGE}")
    for reading in readings:
        towers = {reading.prefix + key.partition(".")[0] + "." for key in reading.mapped}
        for name in adapters:
            if name.startswith(tuple(towers)):
                what = f"{shown(names.plain[name])} is of an adapter (LoRA or its kin) that is not merged"
                raise JclipError(f"{where}: {what}: load it with PEFT, {_MERGE}")


def _check_twins(reading: Reading, names: Names, where: str) -> None:
    for key in sorted(reading.mapped):
        twin = names.twins.get(reading.prefix + key)
        if twin is not None:
            raise JclipError(
                f"{where}: {shown(reading.keys[key])} and {shown(twin)} are two names of one tensor: leave one of them "
                "away"
            )


def _nothing(names: Names, where: str) -> JclipError:
    for part, what in _SHARDS.items():
        if any(part in name for name in names.plain):
            return JclipError(f"{where} holds {what}")
    titles = ", ".join(family.title for family in FAMILIES.values())
    some = ", ".join(sorted(names.plain.values())[:3])
    return JclipError(
        f"{where} is no checkpoint that converts (its tensors: {shown(some)} …): expected one of {titles}"
    )


def _others(readings: Collection[Reading]) -> str:
    return f"it has {', '.join(map(str, readings))}" if readings else "nor anywhere else"


def _row_of(key: str, known: Collection[str]) -> tuple[str, int] | None:
    """(key in the table, layer) of a key; None where the table has no row for it."""
    if key in known:
        return key, 0
    parts = key.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal() and len(part) <= 3:
            stacked = ".".join([*parts[:place], "{i}", *parts[place + 1 :]])
            if stacked in known:
                return stacked, int(part)
    return None


def _spelt_prefix(spelt: str, prefix: str) -> str:
    """The beginning of a name that is the prefix, with the wrappers before, in and right after it."""
    parts, taken = spelt.split("."), 0
    while taken < len(parts):
        bare = plain(".".join(parts[: taken + 1]))
        if bare and not prefix.startswith(f"{bare}."):
            break
        taken += 1
    return "".join(f"{part}." for part in parts[:taken])


def _plain_prefix(said: str) -> str:
    bare = plain(said.rstrip("."))
    return f"{bare}." if bare else ""
