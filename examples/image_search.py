"""Finds the images in a folder that are most similar to a query image.

python examples/image_search.py BUNDLE my-pictures query.jpg
"""

import argparse
from pathlib import Path

import jclip
from jclip import evaluate

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    """Encodes the folder and the query, and prints the nearest images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, help="images, in sub-folders too")
    parser.add_argument("query", type=Path, help="an image")
    parser.add_argument("--k", type=int, default=5, help="number of images to print")
    asked = parser.parse_args()

    model = jclip.load(asked.bundle)
    files = sorted(file for file in asked.folder.rglob("*") if file.suffix.lower() in ENDINGS)
    gallery = model.encode_image(files)  # save it with numpy.save to search again without encoding
    (found,), (cosines,) = evaluate.topk(model.encode_image([asked.query]), gallery, asked.k)
    for index, cosine in zip(found, cosines, strict=True):
        print(f"{cosine:.3f}  {files[index]}")


if __name__ == "__main__":
    main()
