"""`python -m jclip.cli COMMAND`: the same as `jclip COMMAND`."""

import sys

from jclip.cli import main

sys.exit(main())
