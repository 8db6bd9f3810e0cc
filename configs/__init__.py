"""The recipes: one Python file each, with a function `config()` that returns a `jclip.train.Run`."""
