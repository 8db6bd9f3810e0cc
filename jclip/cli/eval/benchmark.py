"""`jclip eval benchmark BUNDLE ...`: runs CLIP_benchmark's own command line on a bundle."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jclip.cli.eval._common import all_devices
from jclip.errors import JclipError
from jclip.plain import complain, say

_HELP = """usage: jclip eval benchmark BUNDLE [CLIP_benchmark's options]

Runs CLIP_benchmark on BUNDLE, with `--model_type jclip --pretrained BUNDLE` and your other options, such as
--dataset cifar10 --task zeroshot_classification --language cn --output cifar10.json.
Needs `pip install clip-benchmark`; `clip_benchmark eval --help` lists its options."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    arguments = list(arguments)
    if not arguments or arguments[0].startswith("-"):
        asked = bool({"-h", "--help"} & set(arguments))
        if asked:
            say(_HELP)
        else:
            complain("jclip eval benchmark: missing: BUNDLE")
        sys.exit(0 if asked else 2)
    bundle, rest = arguments[0], arguments[1:]
    if not (Path(bundle) / "config.json").is_file():
        raise JclipError(f"{bundle} is not a bundle: it has no config.json")
    from jclip.conversion import clip_benchmark
    from jclip.conversion.parity import peers

    peers.make_importable()
    clip_benchmark.register()
    before = sys.argv
    sys.argv = [
        "clip_benchmark", "eval", "--model_type", clip_benchmark.MODEL_TYPE, "--model", Path(bundle).name,
        "--pretrained", bundle, *rest,
    ]  # fmt: skip
    try:
        with all_devices():
            return int(import_module("clip_benchmark.cli").main() or 0)
    finally:
        sys.argv = before
