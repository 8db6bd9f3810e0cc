"""CLIP's modified ResNets: their keys in OpenAI's layout, and their configuration in each library's terms."""

from collections.abc import Collection, Iterable

from jclip.conversion.towers.rows import MappingRow, attention, batch_norm, conv
from jclip.conversion.towers.sizes import HEAD_WIDTH, Sizes, count
from jclip.conversion.towers.tower import Fields, TowerFormat
from jclip.models.resnet import ResNetConfig


def openai_resnet(blocks: tuple[int, ...]) -> Iterable[MappingRow]:
    """Yields the rows of a modified ResNet in OpenAI's layout; `blocks` is the number of blocks in each stage."""
    for index in (1, 2, 3):
        yield from conv(f"image/stem/conv_{index}", f"visual.conv{index}")
        yield from batch_norm(f"image/stem/norm_{index}", f"visual.bn{index}")
    for stage, number in enumerate(blocks, 1):
        for block in range(number):
            ours, theirs = f"image/stage_{stage}_block_{block + 1}", f"visual.layer{stage}.{block}"
            for index in (1, 2, 3):
                yield from conv(f"{ours}/conv_{index}", f"{theirs}.conv{index}")
                yield from batch_norm(f"{ours}/norm_{index}", f"{theirs}.bn{index}")
            if block == 0:  # the first block of a stage changes the width, so its shortcut is a convolution
                yield from conv(f"{ours}/shortcut_conv", f"{theirs}.downsample.0")
                yield from batch_norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.1")
    pool = "visual.attnpool."
    yield MappingRow("image/attention_pool/position_embedding", f"{pool}positional_embedding")
    names = {"query": f"{pool}q_proj", "key": f"{pool}k_proj", "value": f"{pool}v_proj", "output": f"{pool}c_proj"}
    yield from attention("image/attention_pool/attention", names)


def resnet_blocks(keys: Collection[str]) -> tuple[int, ...]:
    """Returns the number of blocks in each stage of a ResNet in OpenAI's layout; empty if the keys have none."""
    blocks = tuple(count(keys, rf"visual\.layer{stage}\.([0-9]{{1,2}})\.conv1\.weight") for stage in (1, 2, 3, 4))
    return blocks if all(blocks) else ()


def resnet_config(sizes: Sizes, blocks: tuple[int, ...]) -> ResNetConfig:
    """Returns the configuration of a ResNet with these blocks in each stage; its heads have 64 channels."""
    width = sizes.shape("image/stem/conv_3/kernel", 4)[3]
    grid = sizes.grid("image/attention_pool/position_embedding")
    return ResNetConfig(32 * grid, blocks, width, heads=max(1, 32 * width // HEAD_WIDTH))


def _depth_keys(config: ResNetConfig) -> tuple[str, ...]:
    return tuple(f"visual.layer{stage}.{blocks - 1}.conv1.weight" for stage, blocks in enumerate(config.layers, 1))


def _cn_clip(config: ResNetConfig) -> Fields:
    return {
        "image_resolution": config.image_size,
        "vision_layers": config.layers,
        "vision_width": config.width,
        "vision_patch_size": None,
        "vision_head_width": 32 * config.width // config.heads,
    }


def _open_clip(config: ResNetConfig) -> Fields:
    return {"layers": config.layers, "width": config.width, "image_size": config.image_size}


def _openai_layers(config: ResNetConfig) -> dict[str, str]:
    return {
        f"image/stage_{stage}_block_{block + 1}": f"visual.layer{stage}.{block}"
        for stage, blocks in enumerate(config.layers, 1)
        for block in range(blocks)
    }


RESNET = TowerFormat(
    title="a ResNet",
    cn_clip=_cn_clip,
    open_clip=_open_clip,
    openai_layers=_openai_layers,
    depth_keys=_depth_keys,
)
