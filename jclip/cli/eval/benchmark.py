"""`jclip eval benchmark BUNDLE ...`: runs CLIP_benchmark's own command line on a bundle."""

import sys
from collections.abc import Sequence

from jclip.cli.eval._common import all_devices
from jclip.loading import local_bundle
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
    from jclip.conversion import clip_benchmark

    with all_devices():
        return clip_benchmark.run(local_bundle(arguments[0]), arguments[1:])
