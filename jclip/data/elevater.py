"""Number of classes of each of ELEVATER's 20 sets, for imports and evaluation."""

CLASSES = {
    "caltech-101": 101, "cifar-10": 10, "cifar-100": 100, "country211": 211, "dtd": 47, "eurosat_clip": 10,
    "fer-2013": 7, "fgvc-aircraft-2013b-variants102": 100, "food-101": 101, "gtsrb": 43, "hateful-memes": 2,
    "kitti-distance": 4, "mnist": 10, "oxford-flower-102": 102, "oxford-iiit-pets": 37, "patch-camelyon": 2,
    "rendered-sst2": 2, "resisc45_clip": 45, "stanford-cars": 196, "voc-2007-classification": 20,
}  # fmt: skip
"""Counts of Yang et al. 2022, table 12."""

_CLUTTER = ("caltech-101",)


def counts(name: str) -> tuple[int, ...]:
    """Returns the numbers of classes that a set may have.

    Caltech-101 has 101, or 102 with its background class ("clutter"). The paper counts 101, but its 6,084 test images
    are those left of 9,144 after taking 30 of each of 102 classes for training. So both are accepted.
    """
    return (CLASSES[name], CLASSES[name] + 1) if name in _CLUTTER else (CLASSES[name],)
