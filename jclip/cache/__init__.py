"""Cache on the disk, which `jclip cache` lists and clears: converted models, compiled programs and digests of files."""
