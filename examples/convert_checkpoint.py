"""Converts a PyTorch checkpoint to a bundle, checks it, and uses it.

python examples/convert_checkpoint.py hf://BAAI/AltCLIP bundles/altclip "a cat" "一只猫"
python examples/convert_checkpoint.py FOLDER_OR_FILE bundles/mine "a cat"
"""

import argparse
from pathlib import Path

import jclip
from jclip import conversion


def main() -> None:
    """Converts the checkpoint, and prints its checks and the similarities between the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder, a file, or hf://ORG/NAME")
    parser.add_argument("bundle", type=Path, help="a new folder")
    parser.add_argument("texts", nargs="+")
    asked = parser.parse_args()

    conversion.convert(asked.source, asked.bundle)
    for check in conversion.verify(asked.bundle, [asked.source]):
        print({True: "ok", False: "WRONG", None: "not checked"}[check.holds], check.what, check.seen, sep="  ")
    texts = jclip.load(asked.bundle).encode_text(asked.texts)
    print(texts @ texts.T)


if __name__ == "__main__":
    main()
