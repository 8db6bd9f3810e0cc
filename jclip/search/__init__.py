"""Index of embedded images and texts, and search in it."""
