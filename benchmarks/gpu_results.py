"""Results of `benchmarks.on_a_gpu`, as JSON and as tables."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Results:
    """Rows of the measurements, names of the parts that were left out by their reason, and failures."""

    device: Row = field(default_factory=dict)
    attention: list[Row] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def write(results: Results, out: Path) -> None:
    """Writes both files. Each is replaced as a whole, so that an interruption leaves the last one."""
    for ending, text in ((".json", json.dumps(asdict(results), indent=1)), (".md", markdown(results))):
        partial = out.with_name(out.name + ending + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(out.with_name(out.name + ending))


def markdown(results: Results) -> str:
    """Returns the tables."""
    kind, versions = results.device.get("kind", "no device"), results.device.get("versions", {})
    lines = [f"{kind}; {', '.join(f'{name} {version}' for name, version in versions.items())}", ""]
    lines += _table(
        ("attention of", "tokens", "examples", "XLA, ms", "cuDNN, ms", "speed of cuDNN over XLA"),
        [
            (
                row["tower"], str(row["tokens"]), str(row["examples"]),
                _figure(row.get("xla_ms"), ".3f"), _figure(row.get("cudnn_ms"), ".3f"), _spread(row),
            )
            for row in results.attention
        ],
    )  # fmt: skip
    lines += _table(
        (
            "model, remat", "pairs", "jclip, pairs/s", "cn_clip, pairs/s", "speed of jclip over cn_clip", "MFU, jclip",
            "MFU, cn_clip", "GiB, jclip", "GiB, planned", "GiB, cn_clip",
        ),
        [
            (
                f"{row['size']}, {row['remat']}" + (" (cn_clip: checkpointing)" if row["checkpointing"] else ""),
                str(row["pairs"]),
                *(_figure(row.get(f"{name}_pairs_per_second"), ".1f") for name in ("jclip", "cn_clip")),
                _spread(row),
                *(_figure(row.get(f"{name}_mfu"), ".1%") for name in ("jclip", "cn_clip")),
                *(_figure(row.get(name), ".1f", 2**30) for name in ("jclip_peak", "planned", "cn_clip_peak")),
            )
            for row in results.training
        ],
    )  # fmt: skip
    lines += [f"- left out: {', '.join(names)}: {reason}" for reason, names in results.left_out.items()]
    return "\n".join(lines + [f"- failed: {each}" for each in results.failures]).rstrip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _figure(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)


def _spread(row: Row) -> str:
    return f"{row['ratio']:.2f} ({row['lowest']:.2f}-{row['highest']:.2f})" if "ratio" in row else ""
