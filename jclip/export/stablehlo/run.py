"""Runs a model that `jclip export --format stablehlo` wrote. Needs jax, numpy and safetensors, but not jclip.

python run.py               # computes the examples beside this file and compares them with jclip's features

from run import load
model = load("folder")
model["text"](ids)          # features of token ids, int32 (n, l)
model["image"](images)      # features of images, uint8 (n, size, size, 3)
"""

import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

FUNCTION, WEIGHTS, EXAMPLES = ".stablehlo", ".safetensors", "examples.safetensors"


class Tower:
    """Function of one tower, with its weights on the default device.

    Args:
      folder: folder of the export.
      name: "image" or "text".
    """

    def __init__(self, folder: str | Path, name: str):
        serialised = (Path(folder) / f"{name}{FUNCTION}").read_bytes()
        self._function = jax.jit(jax.export.deserialize(bytearray(serialised)).call)
        self._weights = jax.device_put(load_file(Path(folder) / f"{name}{WEIGHTS}"))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the features of a batch, float32 (n, d), L2-normalised. Compiles each new shape once."""
        return np.asarray(self._function(self._weights, inputs))


def load(folder: str | Path) -> dict[str, Tower]:
    """Returns the towers of an export by name."""
    return {file.stem: Tower(folder, file.stem) for file in sorted(Path(folder).glob(f"*{FUNCTION}"))}


def main() -> int:
    """Compares the examples with jclip's features; returns 1 if a cosine similarity is below 0.999."""
    folder = Path(__file__).parent
    examples, worst = load_file(folder / EXAMPLES), 1.0
    for name, tower in load(folder).items():
        found, expected = tower(examples[f"{name}/inputs"]), examples[f"{name}/features"]
        cosine = float((found * expected).sum(axis=1).min())
        difference = np.abs(found - expected).max()
        print(f"{name}: largest difference {difference:.1e}, smallest cosine similarity {cosine:.7f}")
        worst = min(worst, cosine)
    return int(not worst > 0.999)


if __name__ == "__main__":
    sys.exit(main())
