"""The description for a package index: README.md without images, whose links hold only in a checkout."""

import re
from pathlib import Path

from setuptools import setup

text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"^!\[.*\n\n(<sub>.*\n\n)?", "", text, flags=re.MULTILINE),
    long_description_content_type="text/markdown",
)
