"""Cache on the disk, which `jclip cache` lists and clears: models, compiled programs, results, digests of files."""
