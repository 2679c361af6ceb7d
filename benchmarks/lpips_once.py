"""LPIPS diversity of 8 images: the lpips package pair by pair, beside features computed once per image.

Both sides run the same network on the same images in turns; the median of the turns' ratios is taken.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import common
from trainables.evaluation import LpipsNetwork, load_lpips

IMAGES = 8
SIZES = {64: 11, 512: 3}  # pixels: turns


def by_the_package(network: LpipsNetwork, images: np.ndarray) -> float:
    """Mean over pairs of the package's own distance of two images."""
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in images]
    with torch.inference_mode():
        pairs = itertools.combinations(tensors, 2)
        return statistics.fmean(float(network.network(one, other, normalize=True)) for one, other in pairs)


def seconds(work: Callable[[], float]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def speedup(network: LpipsNetwork, size: int, turns: int) -> float:
    """How many times as long the package takes, as the median over turns."""
    images = np.random.default_rng(0).random((IMAGES, size, size, 3)).astype(np.float32)
    theirs, ours = by_the_package(network, images), network.diversity(images)  # warm-up, and both must agree
    if abs(theirs - ours) > 1e-5:
        raise RuntimeError(f"the package says {theirs}, features computed once say {ours}")
    ratios = []
    for _ in range(turns):
        package = seconds(lambda: by_the_package(network, images))
        ratios.append(package / seconds(lambda: network.diversity(images)))
    return statistics.median(ratios)


def main() -> None:
    torch.set_num_threads(1)
    network = load_lpips()
    results = []
    for size, turns in SIZES.items():
        if common.QUICK and size > 64:
            continue
        result = common.result(
            "lpips_once" if size == 64 else f"lpips_once_{size}",
            measured=round(speedup(network, size, turns), 2),
            goal=">= 6.8",
            unit="package / ours",
            runs=turns,
            note=f"{IMAGES} images of {size} px, 28 pairs, AlexNet, one thread; 56 passes of the network against "
            f"{IMAGES}, so 7 is the limit but for what batches of small images save",
        )
        results.append(result)
    common.write("lpips_once", results)


if __name__ == "__main__":
    main()
