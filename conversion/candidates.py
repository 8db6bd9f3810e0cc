"""Finds the model in a checkpoint by the names of its tensors.

Models are saved under torch.compile's "_orig_mod.", as an attribute of a Lightning module, in a nested dict beside an
optimizer, or with a head. A candidate is a prefix together with a family whose keys are found under it. If there are
several, such as weights and their moving average, or teacher and student, the error lists them for --prefix.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jclip.conversion.families import FAMILIES, detect, is_signed, respelt
from jclip.conversion.families.family import Family, Shapes
from jclip.conversion.towers.rows import MappingTable
from jclip.errors import JclipError
from jclip.plain import shown

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts that DataParallel, torch.compile, FSDP and Lightning insert anywhere in a name."""
_MOST_CANDIDATES = 16
_LARGEST_HEAD = 20  # tensors; with more beside it, a text encoder is part of a larger, unknown model
_TRAINING = re.compile(
    r"optim|(lr_)?sched|(.*_)?rng|(.*_)?random_state|(grad_)?scaler|amp$|callbacks$|loops$", re.IGNORECASE
)
_STATE = "state of the optimizer or of the training"
_ADAPTER = re.compile(
    r"(^|\.)(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|modules_to_save|original_module|"
    r"ia3_l|hada_w\d\w*|lokr_w\d\w*|oft_[rR]|vera_lambda_\w)(\.|$)"
)
_SHARDS = {
    "flat_param": "FSDP's flat parameters: save it with StateDictType.FULL_STATE_DICT",
    "single_partition_of_fp32_groups": "DeepSpeed's slices of an optimizer: merge them with its zero_to_fp32.py",
}
_MERGE = "call merge_and_unload() and save the state_dict() of what it returns"


@dataclass(frozen=True)
class Names:
    """Original names of a checkpoint's tensors.

    Attributes:
      plain: original name by name without WRAPPERS.
      twins: a second original name that is equal without WRAPPERS, by that name.
    """

    plain: Mapping[str, str]
    twins: Mapping[str, str]

    @classmethod
    def of(cls, spelt: Iterable[str]) -> "Names":
        """Returns the names of a checkpoint, given the original ones."""
        found: dict[str, str] = {}
        twins: dict[str, str] = {}
        for name in spelt:
            bare = without_wrappers(name)
            if found.setdefault(bare, name) != name:
                twins[bare] = name
        return cls(found, twins)


@dataclass(frozen=True)
class Candidate:
    """Possible model in a checkpoint.

    Attributes:
      family: family of the model.
      prefix: prefix of its keys, without WRAPPERS; "" or ending in ".".
      keys: original name of everything under the prefix, by key without prefix and wrappers.
      table: the family's mapping table for these keys.
    """

    family: Family
    prefix: str
    keys: Mapping[str, str]
    table: MappingTable = field(repr=False)

    @cached_property
    def layers(self) -> dict[str, set[int]]:
        """Indices of the layers that have a tensor, by key in the table; {0} for a key without layers."""
        known = {row.theirs for row in self.table}
        found: defaultdict[str, set[int]] = defaultdict(set)
        for key in self.keys:
            row = _row_of(respelt(key, self.family), known)
            if row:
                found[row[0]].add(row[1])
        return dict(found)

    @cached_property
    def mapped(self) -> frozenset[str]:
        """Keys for which the table has a row."""
        known = {row.theirs for row in self.table}
        return frozenset(key for key in self.keys if _row_of(respelt(key, self.family), known))

    @cached_property
    def names(self) -> frozenset[str]:
        """Original names of the mapped keys."""
        return frozenset(self.keys[key] for key in self.mapped)

    @cached_property
    def complete(self) -> bool:
        """True if no tensor is missing."""
        stacks: defaultdict[str, list[set[int]]] = defaultdict(list)
        for row in self.table:
            stacks[row.theirs.partition("{i}")[0] if row.stacked else ""].append(self.layers.get(row.theirs, set()))
        return all(one == set(range(len(max(stack, key=len)))) for stack in stacks.values() for one in stack)

    @property
    def spelt_prefix(self) -> str:
        """Prefix with its wrappers, as in the file."""
        found = {_spelt_prefix(self.keys[key], self.prefix) for key in self.mapped}
        return found.pop() if len(found) == 1 else self.prefix

    def __str__(self) -> str:
        """Returns the prefix, the family and the number of tensors, for messages."""
        return f"{shown(self.spelt_prefix) or repr('')} ({self.family.title}, {len(self.mapped)} tensors)"


def find_model(
    shapes: Shapes,
    config: Mapping[str, Any],
    where: str,
    *,
    torchscript: bool = False,
    family: Family | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> tuple[Candidate, dict[str, str]]:
    """Finds the model in a checkpoint. Returns it, and why each other tensor is left out, by original name.

    Raises JclipError if there is no model, if there are several (the message lists them), or if it has unmerged
    adapters.

    Args:
      shapes: shapes by original name.
      config: contents of config.json; empty without it.
      where: the checkpoint, for messages.
      torchscript: True for a TorchScript archive, the format of OpenAI's files.
      family: family that the user gave, which decides between several models; None for any.
      key: entry of a nested dict in which to search, such as "ema" or "callbacks.ema"; None to search everywhere.
      prefix: prefix of the model's keys after `key`; None to detect it.
    """
    names = Names.of(shapes)
    inside = _plain_prefix(key) if key is not None else ""
    if inside and not any(name.startswith(inside) for name in names.plain):
        tops = ", ".join(dict.fromkeys(shown(name.partition(".")[0]) for name in shapes))
        raise JclipError(f"{where} has no tensors under --key {key}: it has {tops}")
    found = _candidates(names, shapes, config, torchscript, inside)
    if prefix is not None:
        asked = inside + _plain_prefix(prefix)
        chosen = [candidate for candidate in found if candidate.prefix == asked]
        _check_adapters(names, inside, chosen, where)
        if not chosen:
            others = f"it has {', '.join(map(str, found))}" if found else "it has none elsewhere either"
            raise JclipError(f"{where} has no model under --prefix {prefix!r}: {others}")
    else:
        chosen = _largest(found)
        _check_adapters(names, inside, chosen, where)
        if not chosen:
            raise _no_model(names, where)
        chosen = _narrowed(chosen, family)
    if len(chosen) > 1:
        raise JclipError(
            f"{where} holds {len(chosen)} models: {', '.join(map(str, chosen))}: choose one, for example with --prefix "
            f"{chosen[0].spelt_prefix.rstrip('.') or repr('')}"
        )
    (model,) = chosen
    _check_twins(model, names, where)
    if all(0 in shapes[name] for name in model.names):
        raise JclipError(f"{where}: all tensors are empty, as in DeepSpeed's ZeRO: merge them with its zero_to_fp32.py")
    left_out = _left_out(model, names, inside, _largest(found))
    if prefix is None:
        _check_alone(model, left_out, where)
    return model, left_out


def without_wrappers(name: str) -> str:
    """Returns a name without WRAPPERS.

    >>> without_wrappers("_orig_mod.module.visual._orig_mod.conv1.weight")
    'visual.conv1.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def count_by_top(names: Iterable[str]) -> str:
    """Returns the top-level names of tensors with the number of tensors of each, for messages.

    >>> count_by_top(["head.weight", "head.bias", "logit_bias"])
    'head (2 tensors), logit_bias'
    """
    counts = Counter(shown(name.partition(".")[0]) for name in names)
    return ", ".join(f"{top} ({count} tensors)" if count > 1 else top for top, count in counts.items())


def _candidates(
    names: Names, shapes: Shapes, config: Mapping[str, Any], torchscript: bool, inside: str
) -> list[Candidate]:
    found = []
    for prefix in _prefixes(names.plain, inside):
        keys = {name.removeprefix(prefix): spelt for name, spelt in names.plain.items() if name.startswith(prefix)}
        family = detect({key: shapes[spelt] for key, spelt in keys.items()}, config, torchscript=torchscript)
        if family is not None:
            table = family.table([respelt(key, family) for key in keys])
            found.append(Candidate(family, prefix, keys, table))
    return found


def _prefixes(names: Collection[str], inside: str) -> list[str]:
    """Returns the prefixes under which the first key of a family's signature is found, the shortest first."""
    found: set[str] = set()
    for family in FAMILIES.values():
        anchor = family.signature[0]
        ending = anchor.split(".", 1)[-1]
        for name in names:
            if name.endswith(ending) and name.startswith(inside):
                starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
                found.update(name[:start] for start in starts if respelt(name[start:], family) == anchor)
        if len(found) > _MOST_CANDIDATES:
            break
    fitting = (prefix for prefix in found if prefix.startswith(inside))
    return sorted(fitting, key=lambda prefix: (len(prefix), prefix))[:_MOST_CANDIDATES]


def _largest(candidates: Collection[Candidate]) -> list[Candidate]:
    """Returns the candidates that are not part of another, as BERT is of Chinese-CLIP."""
    first = {one.names: one for one in reversed(list(candidates))}  # the first of those with the same tensors
    largest = [one for one in candidates if not any(one.names < other.names for other in candidates)]
    return [one for one in largest if first[one.names] is one]


def _narrowed(candidates: list[Candidate], family: Family | None) -> list[Candidate]:
    """Reduces several candidates to those of the given family, then to those without missing tensors."""
    if len(candidates) > 1 and family is not None:
        fitting = [one for one in candidates if is_signed(one.keys, family)]
        candidates = fitting or candidates
    if len(candidates) > 1:
        candidates = [one for one in candidates if one.complete] or candidates
    return candidates


def _left_out(candidate: Candidate, names: Names, inside: str, others: Collection[Candidate]) -> dict[str, str]:
    """Returns why a tensor is not part of the model, by original name.

    An unexpected tensor in a module beside the towers is a head. An unexpected tensor in a tower, or one outside all
    modules as the logit scale is, means another architecture: it stays in the model, and the conversion refuses it.
    """
    towers = {respelt(key, candidate.family).partition(".")[0] for key in candidate.mapped}
    inner = set()
    for key, spelt in candidate.keys.items():
        name = respelt(key, candidate.family)
        expected = any(re.fullmatch(pattern, name) for pattern, _ in candidate.family.dropped)
        if key in candidate.mapped or expected or "." not in name or name.partition(".")[0] in towers:
            inner.add(spelt)
    found = {}
    for spelt in (*names.plain.values(), *names.twins.values()):
        bare = without_wrappers(spelt)
        if spelt in inner:
            continue
        other = next((one for one in others if one is not candidate and spelt in one.names), None)
        if other is not None:
            found[spelt] = f"part of another model, {other}"
        elif inside and not bare.startswith(inside):
            found[spelt] = "outside --key"
        elif any(_TRAINING.match(name.partition(".")[0]) for name in (bare, bare.removeprefix(candidate.prefix))):
            found[spelt] = _STATE
        elif bare.startswith(candidate.prefix):
            found[spelt] = "a head, or another part beside the towers"
        else:
            found[spelt] = "beside the model's weights"
    return found


def _check_alone(candidate: Candidate, left_out: Mapping[str, str], where: str) -> None:
    """Raises JclipError if a text encoder is part of a larger model, such as a CLIP that cannot be converted."""
    if not candidate.family.text_only:
        return
    beside = [name for name, why in left_out.items() if why != _STATE]
    if len(beside) > _LARGEST_HEAD:
        prefix = candidate.spelt_prefix.rstrip(".")
        raise JclipError(
            f"{where}: only a text encoder, {candidate}, can be converted; beside it are {count_by_top(beside)}. To "
            f"convert it alone, give --prefix {prefix or repr('')}"
        )


def _check_adapters(names: Names, inside: str, candidates: Collection[Candidate], where: str) -> None:
    """Raises JclipError if there are unmerged adapters such as LoRA."""
    adapters = [name for name in names.plain if name.startswith(inside) and _ADAPTER.search(name)]
    if not adapters:
        return
    if not candidates:
        name = shown(names.plain[adapters[0]])
        raise JclipError(f"{where} holds an unmerged adapter ({name}): load it on its base model with PEFT, {_MERGE}")
    for candidate in candidates:
        towers = {candidate.prefix + key.partition(".")[0] + "." for key in candidate.mapped}
        for name in adapters:
            if name.startswith(tuple(towers)):
                what = f"{shown(names.plain[name])} belongs to an unmerged adapter such as LoRA"
                raise JclipError(f"{where}: {what}: load it with PEFT, {_MERGE}")


def _check_twins(candidate: Candidate, names: Names, where: str) -> None:
    for key in sorted(candidate.mapped):
        twin = names.twins.get(candidate.prefix + key)
        if twin is not None:
            pair = f"{shown(candidate.keys[key])} and {shown(twin)}"
            raise JclipError(f"{where}: {pair} are two names of one tensor: remove one")


def _no_model(names: Names, where: str) -> JclipError:
    for part, what in _SHARDS.items():
        if any(part in name for name in names.plain):
            return JclipError(f"{where} holds {what}")
    titles = ", ".join(family.title for family in FAMILIES.values())
    some = shown(", ".join(sorted(names.plain.values())[:3]))
    return JclipError(f"{where} is not a checkpoint that jclip converts (it has {some} …): expected one of {titles}")


def _row_of(key: str, known: Collection[str]) -> tuple[str, int] | None:
    """Returns a key's name in the table and its layer, or None if the table has no row for it."""
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
    """Returns a prefix with its wrappers, as an original name begins with it."""
    parts, taken = spelt.split("."), 0
    while taken < len(parts):
        bare = without_wrappers(".".join(parts[: taken + 1]))
        if bare and not prefix.startswith(f"{bare}."):
            break
        taken += 1
    return "".join(f"{part}." for part in parts[:taken])


def _plain_prefix(said: str) -> str:
    bare = without_wrappers(said.rstrip("."))
    return f"{bare}." if bare else ""
