"""Classifies images by class names, without training on the classes.

python examples/zero_shot.py BUNDLE 猫,狗 a.jpg b.jpg --prompts zh
"""

import argparse
from pathlib import Path

import jclip
from jclip import evaluate


def main() -> None:
    """Prints the most probable class of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("names", help="class names, separated by commas")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--prompts", default="en", help="language of the names, such as zh")
    asked = parser.parse_args()

    names = asked.names.split(",")
    probabilities = evaluate.zero_shot(jclip.load(asked.bundle), asked.pictures, names, prompts=asked.prompts)
    for picture, row in zip(asked.pictures, probabilities, strict=True):
        print(f"{picture}: {names[row.argmax()]} ({row.max():.0%})")


if __name__ == "__main__":
    main()
