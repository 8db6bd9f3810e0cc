"""Sources of an index: folders, files, tars, data folders, text files, and vectors of other programs and indexes."""
