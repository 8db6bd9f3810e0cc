"""`python3` of a TPU VM: pretends to install uv, and makes environments whose jclip is the tree installed into them."""

import os
import sys
from pathlib import Path

from shared import record

JCLIP = Path(__file__).with_name("jclip.py")

match sys.argv[1:]:
    case ["-m", "pip", "install", *packages]:
        record("pip", packages=packages)
    case ["-m", "uv", "venv", *_, folder]:
        (Path(folder) / "bin").mkdir(parents=True)
    case ["-m", "uv", "pip", "install", "--quiet", "--python", python, "-e", tree]:
        record("uv")
        folder, _, extra = tree.partition("[")
        assert extra == "tpu]" and (Path(folder) / "pyproject.toml").exists()
        jclip = Path(python).with_name("jclip")
        jclip.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} -S -E {JCLIP} "$@"\n')
        jclip.chmod(0o755)
    case _:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
