"""`gcsfuse BUCKET FOLDER`: makes FOLDER a link to a folder that all workers share."""

import sys
from pathlib import Path

from shared import STATE, options, record

record("gcsfuse")
_, (bucket, folder) = options("gcsfuse", sys.argv[1:], {"implicit-dirs", "metadata-cache-ttl-secs"})
shared = STATE / "buckets" / bucket
shared.mkdir(parents=True, exist_ok=True)
if not Path(folder).is_symlink():
    Path(folder).rmdir()
    Path(folder).symlink_to(shared)
