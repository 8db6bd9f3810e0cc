"""Data sets of the papers, by name, from their published archives in a folder of downloads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from jclip.data.elevater import CLASSES
from jclip.data.importing.named.chinese_clip import open_flickr30k_cn, open_muge
from jclip.data.importing.named.coco_cn import open_coco_cn
from jclip.data.importing.named.crossmodal import open_crossmodal
from jclip.data.importing.named.elevater import open_elevater
from jclip.data.importing.named.karpathy import open_coco, open_flickr30k
from jclip.data.importing.named.xtd import open_xtd
from jclip.data.importing.parts import Reader, Reading

NAMED: dict[str, tuple[str, Callable[[Path, Reading], Reader]]] = {
    "muge": ("MUGE.zip as Chinese-CLIP's authors publish it", open_muge),
    "flickr30k-cn": ("Flickr30k-CN.zip as Chinese-CLIP's authors publish it", open_flickr30k_cn),
    "flickr30k": ("dataset_flickr30k.json (Karpathy's splits) and flickr30k-images", open_flickr30k),
    "mscoco": ("dataset_coco.json (Karpathy's splits), COCO's val2014, and train2014 for the train split", open_coco),
    "coco-cn": ("coco-cn-version1805v1.1 and COCO's train2014 and val2014", open_coco_cn),
    "coco-cn-5k": (
        "the same as coco-cn; imports the test images with five translated captions each",
        partial(open_coco_cn, five=True),
    ),
    "xtd": ("Cross-lingual-Test-Dataset-XTD10 and COCO's train2014 and val2014", open_xtd),
    "crossmodal-3600": ("captions.zip and images.tgz of Crossmodal-3600", open_crossmodal),
    **{
        f"elevater/{name}": (f"{name}.zip, or the ELEVATER_all.zip that has it", partial(open_elevater, name))
        for name in CLASSES
    },
}
