"""The experiments of this project: one Python file each, with a function `config()`."""
