"""Opens files with tensors, in any supported format."""

from pathlib import Path

from jclip.io.safetensors import open_safetensors
from jclip.io.tensors import TensorFile
from jclip.io.torch_file import open_torch_file


def open_tensor_file(file: Path) -> TensorFile:
    """Opens a file with tensors: safetensors (known by its ending) or what torch.save and torch.jit.save write.

    Values are read on demand. Nothing that a file contains is executed. Raises JclipError if the file is missing,
    damaged, of another format, or refers to code.
    """
    file = Path(file)
    return TensorFile(open_safetensors(file), {}) if file.suffix == ".safetensors" else open_torch_file(file)
