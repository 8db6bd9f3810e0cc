"""Draws AutoAugment's 25 pairs of operations on a photograph, by default one of scikit-learn's, as a contact sheet.

    python -m benchmarks.policy_picture sheet.png [photograph.jpg]

Each pair is shown as the first operation, the second, and both. In training each has its own probability, so often only
one is applied. Take a photograph of your own data and check that its caption is still true. Solarize, invert and
color 0.1 remove colours that the caption may name; rotate and shear_x slant writing and cut off its ends. Uncovered
corners are filled with CLIP's mean colour, a dull grey. If captions depend on colours, omit
`host_augmentation.auto_augment`.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from jclip.images.auto_augment import MOVING, POLICY, Operation, at_level, operate
from jclip.images.preprocess import CLIP_MEAN

SIDE, GAP, LINE, COLUMNS = 150, 8, 13, 3
FILL = tuple(round(255 * mean) for mean in CLIP_MEAN)


def main(target: str, photograph: str = "") -> None:
    """Draws the sheet: for each pair the first operation, the second (in the opposite direction), and both."""
    source = Path(photograph) if photograph else _photograph()
    image = Image.open(source).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    width, height = 3 * SIDE + 3 * GAP, SIDE + 2 * LINE + GAP
    rows = -(-len(POLICY) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, (rows + 1) * height), "white")
    draw = ImageDraw.Draw(sheet)
    sheet.paste(image, (0, 2 * LINE))
    draw.text((0, 0), f"unchanged: {source.name}\nthen: first, second, both", fill="black")
    for number, pair in enumerate(POLICY):
        x, y = number % COLUMNS * width, (number // COLUMNS + 1) * height
        first, second = (at_level(name, level) for name, _, level in pair)
        chances = " ".join(f"{probability:g}" for _, probability, _ in pair)
        draw.text((x, y), f"{number}  {_said(first)} / {_said(second)}\n    probabilities {chances}", fill="black")
        for column, operations in enumerate(((first,), (_turned(second),), (first, second))):
            changed = image
            for operation in operations:
                changed = operate(changed, operation, FILL, Image.Resampling.BICUBIC)
            sheet.paste(changed, (x + column * (SIDE + GAP // 2), y + 2 * LINE))
    sheet.save(target, optimize=True)


def _photograph() -> Path:
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def _turned(operation: Operation) -> Operation:
    return operation._replace(value=-operation.value) if operation.name in MOVING else operation


def _said(operation: Operation) -> str:
    return f"{operation.name} {operation.value:.3g}" if operation.value else operation.name


if __name__ == "__main__":
    main(*sys.argv[1:])
