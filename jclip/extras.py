"""Optional dependencies, and the errors for missing ones, which name the extra that installs them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from jclip.errors import JclipError

EXTRAS = {
    "optax": "train",
    "orbax": "train",
    "grain": "train",
    "cloudpickle": "train",
    "array_record": "train",
    "tensorflow_datasets": "train",
    "importlib_resources": "train",
    "tensorboardX": "train",
    "scipy": "train",
    "jinja2": "train",
    "markupsafe": "train",
    "matplotlib": "train",
    "lmdb": "data",
    "pyarrow": "data",
    "torch": "convert",
    "torchvision": "convert",
    "transformers": "convert",
    "huggingface_hub": "convert",
    "cn_clip": "convert",
    "open_clip": "convert",
    "pillow_heif": "heic",
    "faiss": "search",
    "psycopg": "pgvector",
    "pymilvus": "milvus",
    "grpc": "milvus",
    "milvus_lite": "milvus",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "onnx": "export",
    "onnxruntime": "export",
    "safetensors": "export",
    "apache_beam": "beam",
    "wandb": "wandb",
    "libtpu": "plan-tpu",
    "jax_cuda12_plugin": "plan-cuda",
}
"""Extra of pyproject.toml that installs each optional module."""


class MissingExtra(JclipError, ImportError):
    """Error for an optional dependency that is not installed; the message names the extra."""

    def __init__(self, module: str, otherwise: str = ""):
        super().__init__(f"{module} is not installed: {installing(module)}{otherwise and ', '}{otherwise}")


def installing(module: str) -> str:
    """Returns the command that installs an optional module: 'pip install "jclip[train]"'."""
    return f'pip install "jclip[{EXTRAS[module]}]"'


@contextmanager
def reported_extras(otherwise: str = "") -> Iterator[None]:
    """Raises `MissingExtra` if the import of a module of `EXTRAS` fails in the block; `otherwise` ends its message."""
    try:
        yield
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top not in EXTRAS:
            raise
        raise MissingExtra(top, otherwise) from None


def check_installed(modules: Iterable[str]) -> None:
    """Checks that optional modules are installed, without importing them; raises `MissingExtra` if one is not."""
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtra(module)
