"""The figures that the papers publish, in percent: `jclip plan` and docs/ledger.md print them.

Sources: Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335v3; the repository's Results.md has the same tables) and
AltCLIP (Chen et al. 2022, arXiv 2211.06679v2).
"""

Triple = tuple[float, float, float]
"""R@1, R@5, R@10."""

# Chinese-CLIP, table 1: MUGE, validation split, text to image: R@1/5/10 and their mean; zero-shot, fine-tuned.
MUGE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "rn50": ((42.6, 68.6, 77.9, 63.0), (48.6, 75.1, 84.0, 69.2)),
    "vit_b_16": ((52.1, 76.7, 84.4, 71.1), (58.4, 83.6, 90.0, 77.4)),
    "vit_l_14": ((56.3, 79.8, 86.2, 74.1), (63.3, 85.6, 91.3, 80.1)),
    "vit_l_14_336": ((59.0, 81.4, 87.8, 76.1), (65.3, 86.7, 92.1, 81.3)),
    "vit_h_14": ((63.0, 84.1, 89.2, 78.8), (68.9, 88.7, 93.1, 83.6)),
}
MUGE_1_GPU = (56.87, 81.21, 87.92, 75.33)
"""The repository's notebook: ViT-B/16 on one GPU, one epoch."""

# Chinese-CLIP, table 2, test split: zero-shot text to image, image to text; fine-tuned text to image, image to text.
FLICKR30K_CN: dict[str, tuple[Triple, Triple, Triple, Triple]] = {
    "rn50": ((48.8, 76.0, 84.6), (60.0, 85.9, 92.0), (66.7, 89.4, 94.1), (84.2, 96.7, 98.0)),
    "vit_b_16": ((62.7, 86.9, 92.8), (74.6, 93.5, 97.1), (79.1, 94.8, 97.4), (93.5, 99.0, 99.5)),
    "vit_l_14": ((68.0, 89.7, 94.4), (80.2, 96.6, 98.2), (82.7, 96.7, 98.6), (96.1, 99.5, 99.9)),
    "vit_l_14_336": ((69.0, 90.7, 95.4), (83.3, 97.2, 98.5), (84.4, 97.1, 98.7), (96.6, 99.8, 100.0)),
    "vit_h_14": ((71.2, 91.4, 95.5), (81.6, 97.5, 98.8), (83.8, 96.9, 98.6), (95.3, 99.7, 100.0)),
}
COCO_CN: dict[str, tuple[Triple, Triple, Triple, Triple]] = {
    "rn50": ((48.1, 81.3, 90.5), (51.6, 81.2, 90.5), (66.8, 91.1, 97.0), (68.4, 93.3, 97.8)),
    "vit_b_16": ((62.2, 86.6, 94.9), (57.0, 84.1, 93.6), (77.0, 97.1, 99.0), (77.4, 96.2, 98.9)),
    "vit_l_14": ((64.0, 89.2, 94.4), (60.4, 84.2, 92.9), (78.9, 96.3, 99.0), (80.2, 96.7, 99.2)),
    "vit_l_14_336": ((64.7, 89.6, 94.6), (63.4, 87.2, 94.4), (80.1, 96.7, 99.2), (81.2, 97.2, 99.1)),
    "vit_h_14": ((69.2, 89.9, 96.1), (63.0, 86.6, 92.9), (81.5, 96.9, 99.1), (83.5, 97.3, 99.2)),
}

# Chinese-CLIP, table 12, zero-shot in Chinese: the set's metric, then RN50, B/16, L/14, L/14 at 336 pixels, H/14.
ELEVATER: dict[str, tuple[str, tuple[float, float, float, float, float]]] = {
    "caltech-101": ("mean per class", (77.3, 84.9, 88.5, 88.8, 90.6)),
    "cifar-10": ("accuracy", (72.7, 92.0, 94.9, 94.1, 96.0)),
    "cifar-100": ("accuracy", (40.6, 64.4, 75.1, 73.5, 79.7)),
    "country211": ("accuracy", (7.7, 15.2, 21.0, 25.4, 25.3)),
    "dtd": ("accuracy", (36.9, 43.6, 44.2, 43.8, 51.2)),
    "eurosat_clip": ("accuracy", (27.0, 46.9, 56.9, 50.7, 52.0)),
    "fer-2013": ("accuracy", (21.9, 47.2, 54.6, 55.1, 49.2)),
    "fgvc-aircraft-2013b-variants102": ("mean per class", (5.4, 12.8, 16.0, 17.1, 26.2)),
    "food-101": ("accuracy", (39.8, 62.4, 69.4, 73.9, 74.6)),
    "gtsrb": ("accuracy", (22.3, 28.4, 37.3, 35.5, 38.5)),
    "hateful-memes": ("ROC AUC", (50.3, 56.2, 53.4, 52.8, 54.7)),
    "kitti-distance": ("accuracy", (30.2, 33.5, 49.9, 49.8, 39.1)),
    "mnist": ("accuracy", (50.2, 67.6, 69.8, 65.0, 79.4)),
    "oxford-flower-102": ("mean per class", (30.7, 52.2, 62.5, 64.8, 68.4)),
    "oxford-iiit-pets": ("mean per class", (48.7, 73.0, 81.6, 83.1, 83.5)),
    "patch-camelyon": ("accuracy", (47.7, 54.0, 63.5, 62.9, 52.4)),
    "rendered-sst2": ("accuracy", (50.1, 52.3, 61.4, 62.9, 61.0)),
    "resisc45_clip": ("accuracy", (49.3, 58.7, 65.2, 65.8, 66.9)),
    "stanford-cars": ("accuracy", (27.3, 42.3, 49.8, 54.1, 71.8)),
    "voc-2007-classification": ("11-point mAP", (82.1, 83.3, 84.5, 84.9, 84.9)),
}
ELEVATER_AVERAGE = (40.9, 53.5, 60.0, 60.2, 62.3)
IMAGENET_CN = (33.5, 48.3, 54.7, 56.7, 59.6)

# AltCLIP, table 1, zero-shot top 1: ImageNet, -Sketch, -A, -R, -V2 in English, then in Chinese.
IMAGENET: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "clip-vit-l-14": ((75.5, 59.6, 70.6, 87.9, 69.9), (1.9, 1.7, 4.7, 4.4, 1.8)),
    "chinese-clip-vit-l-14": ((32.5, 30.7, 29.8, 57.0, 28.6), (53.6, 47.5, 42.8, 78.1, 47.8)),
    "AltCLIP_T": ((74.7, 59.2, 70.4, 87.9, 68.8), (58.2, 46.9, 62.7, 82.1, 53.3)),
    "altclip": ((74.5, 58.7, 69.5, 87.2, 68.2), (59.6, 48.4, 61.5, 82.5, 54.0)),
}

# AltCLIP, table 2: text to image, image to text R@1/5/10, mean recall; by protocol, for the four models of MODELS.
MODELS = ("AltCLIP", "AltCLIP_T", "CLIP", "Chinese-CLIP")
RETRIEVAL: dict[str, tuple[str, tuple[tuple[Triple, Triple, float], ...]]] = {
    "flickr30k": (
        "Flickr30k",
        (
            ((72.5, 91.6, 95.4), (86.0, 98.0, 99.1), 90.4),
            ((66.3, 87.8, 92.7), (85.9, 97.7, 99.1), 88.3),
            ((65.0, 87.1, 92.2), (85.1, 97.3, 99.2), 87.6),
            ((49.5, 76.9, 83.8), (66.5, 91.2, 96.0), 77.3),
        ),
    ),
    "flickr30k-cn": (
        "Flickr30k-CN",
        (
            ((69.8, 89.9, 94.7), (84.8, 97.4, 98.8), 89.2),
            ((63.7, 86.3, 92.1), (84.7, 97.4, 98.7), 87.2),
            ((0.0, 2.4, 4.0), (2.3, 8.1, 12.6), 5.0),
            ((68.0, 89.7, 94.4), (80.2, 96.6, 98.2), 87.9),
        ),
    ),
    "mscoco": (
        "COCO 5k",
        (
            ((42.9, 68.0, 77.4), (58.6, 80.6, 87.8), 69.2),
            ((37.5, 62.1, 72.1), (57.2, 80.5, 87.5), 66.1),
            ((36.5, 61.1, 71.1), (56.4, 79.5, 86.5), 65.2),
            ((26.1, 50.0, 61.3), (40.9, 65.8, 76.3), 53.4),
        ),
    ),
    "coco-cn": (
        "COCO-CN 1K",
        (
            ((63.9, 87.2, 93.9), (62.8, 88.8, 95.5), 82.0),
            ((55.7, 82.9, 91.2), (60.7, 86.3, 93.4), 78.4),
            ((0.6, 4.1, 7.1), (1.8, 6.7, 11.9), 5.4),
            ((63.7, 88.7, 94.4), (61.0, 84.7, 93.6), 81.0),
        ),
    ),
    "coco-cn-5k": (
        "COCO-CN 5K",
        (
            ((61.3, 86.0, 93.2), (77.8, 94.4, 97.5), 85.0),
            ((54.9, 81.8, 90.5), (76.3, 93.9, 97.6), 82.5),
            ((0.8, 3.9, 5.8), (3.5, 8.9, 14.4), 6.2),
            ((58.6, 85.3, 92.7), (72.1, 90.9, 94.7), 82.4),
        ),
    ),
}

# AltCLIP-m9, table 3: XTD, R@10 by language; the last two rows by gregor-ge/Babel-ImageNet on the same weights.
XTD_LANGUAGES = ("en", "es", "fr", "zh", "it", "ko", "ru", "ja")
XTD = {
    "AltCLIP-m9, paper": (95.4, 94.1, 92.9, 95.1, 94.2, 94.4, 91.8, 91.7),
    "the same weights, gregor-ge/Babel-ImageNet": (95.4, 94.1, 92.9, 95.1, 94.1, 94.3, 91.8, 91.7),
    "text to image, by the latter": (92.4, 91.1, 90.4, 91.4, 91.5, 91.7, 87.9, 89.2),
}

# AltCLIP, table 4: mean recall on Flickr30k en, zh; ImageNet en, zh. The marks: English text, machine translations,
# human translations, image-text pairs.
ABLATION: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "altclip/vit_l_14": ("xxxx", (90.4, 89.2, 74.5, 59.6)),
    "altclip/ablation/without_contrastive": ("xxx ", (88.3, 87.2, 74.7, 58.2)),
    "altclip/ablation/machine_translations": ("xx  ", (86.8, 85.8, 51.6, 41.7)),
    "altclip/ablation/english_alone": ("x   ", (86.6, 53.9, 53.8, 12.8)),
    "altclip/ablation/translations_alone": (" x  ", (61.9, 85.4, 15.5, 42.5)),
}


def joined(values: tuple[float, ...], separator: str = "/") -> str:
    """Returns figures as the papers print them.

    >>> joined((1, 2.5))
    '1.0/2.5'
    """
    return separator.join(f"{value:.1f}" for value in values)


def published() -> dict[str, str]:
    """Returns {run's name: published figures, as a sentence} for the runs that have any."""
    found = {}
    for size, (zero_shot, tuned) in MUGE.items():
        name = f"chinese-clip-{size.replace('_', '-')}"
        at = "after the last stage, on the authors' 200M pairs"
        found[name] = f"MUGE zero-shot, text to image R@1/5/10 {joined(zero_shot[:3])} {at}"
        found[f"{name}-muge"] = f"MUGE validation split, text to image R@1/5/10 {joined(tuned[:3])}"
        for key, title, table in (
            ("flickr30k-cn", "Flickr30K-CN", FLICKR30K_CN),
            ("coco-cn", "COCO-CN", COCO_CN),
        ):
            texts, images = table[size][2:]
            found[f"{name}-{key}"] = (
                f"{title} test split, text to image R@1/5/10 {joined(texts)}, image to text {joined(images)}"
            )
    found["muge-vit-b-16-1-gpu"] = f"MUGE validation split, text to image R@1/5/10 {joined(MUGE_1_GPU[:3])}"
    for recipe, (_, (flickr_en, flickr_zh, imagenet_en, imagenet_zh)) in ABLATION.items():
        name = "altclip" if recipe == "altclip/vit_l_14" else f"altclip-{recipe.rpartition('/')[2].replace('_', '-')}"
        found[name] = (
            f"mean recall on Flickr30k {flickr_en} en, {flickr_zh} zh; ImageNet zero-shot {imagenet_en} en, "
            f"{imagenet_zh} zh"
        )
    by_language = ", ".join(
        f"{value} {language}" for language, value in zip(XTD_LANGUAGES, XTD["AltCLIP-m9, paper"], strict=True)
    )
    found["altclip-m9"] = f"XTD image to text R@10 {by_language}"
    return found
