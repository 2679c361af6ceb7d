"""LPIPS of a set of images with the features of each image computed once (Zhang et al. 2018, AlexNet, v0.1).

LPIPS of a pair is the squared distance of channel-normalised features, weighted per channel and averaged over places.
The weights are not negative, so their roots go into the features: a pair then costs a product, not two networks.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lpips
import numpy as np
import torch

from trainables.evaluation.pixels import Images, as_tensor
from tune_lora.errors import InputError

SMALLEST = 32  # pixels; below it the last layers of AlexNet have no places left
CACHED_NAME = "alexnet-owt-7be5be79.pth"  # torchvision's name of its ImageNet weights
_RANDOM_SEED = 0
_BATCH_PIXELS = 16 * 64 * 64  # more at once is slower on a CPU: the first layers leave its cache
_PIXELS_AT_ONCE = 16 * 512 * 512  # of images whose features stand side by side: 160 MB
_SEGMENT = 16384  # features summed up in one go: float32 loses the fifth digit over millions


@dataclass(frozen=True)
class LpipsNetwork:
    """The network, and whether its distances mean what the literature's do. `note` says where its weights come from."""

    network: lpips.LPIPS
    calibrated: bool
    note: str

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def features(self, images: Images) -> torch.Tensor:
        """Features (N, D) of images (N, H, W, 3): LPIPS of two images is the squared distance of their rows."""
        height, width = images.shape[1:3]
        if min(height, width) < SMALLEST:
            raise ValueError(f"images are {height}x{width} pixels; LPIPS needs at least {SMALLEST}")
        batch = max(1, _BATCH_PIXELS // (height * width))
        return torch.cat([self._features(images[start : start + batch]) for start in range(0, len(images), batch)])

    def _features(self, images: Images) -> torch.Tensor:
        layers = self.network.net(self.network.scaling_layer(2 * as_tensor(images, self.device) - 1))
        weighted = []
        for layer, linear in zip(layers, self.network.lins, strict=True):
            weight = linear.model[-1].weight  # (1, channels, 1, 1)
            places = layer.shape[-2] * layer.shape[-1]
            weighted.append((lpips.normalize_tensor(layer).mul_((weight / places).sqrt())).flatten(1))
        return torch.cat(weighted, dim=1)

    @torch.inference_mode()
    def pairwise(self, images: Images) -> np.ndarray:
        """LPIPS of all N (N - 1) / 2 pairs, in the order (0, 1), (0, 2), ..., (N - 2, N - 1)."""
        return _distances(self.features(images))

    def diversity(self, images: Images) -> float:
        """Mean LPIPS over all pairs; 0 for a single image, which differs from nothing."""
        return self.diversities([images])[0]

    @torch.inference_mode()
    def diversities(self, sets: Sequence[Images]) -> list[float]:
        """The diversity of each of several sets of images of one size; the network sees as many images at once as fit,
        whosever they are."""
        found: list[float] = []
        for some in _at_once(sets):
            rows = self.features(np.concatenate(some)).split([len(images) for images in some])
            found += [float(_distances(one).mean(dtype=np.float64)) if len(one) > 1 else 0.0 for one in rows]
        return found


def _distances(features: torch.Tensor) -> np.ndarray:
    """Squared distances of all pairs of rows (N, D), in the order of `LpipsNetwork.pairwise`."""
    products = torch.stack([_centred_products(segment) for segment in features.split(_SEGMENT, dim=1)]).sum(dim=0)
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0).cpu().numpy()
    upper: np.ndarray = distances[np.triu_indices(len(features), k=1)]
    return upper


def _at_once(sets: Sequence[Images]) -> Iterator[list[Images]]:
    """Sets whose features are kept in memory together: those of one, at least."""
    waiting: list[Images] = []
    for images in sets:
        pixels = sum(one.shape[0] * one.shape[1] * one.shape[2] for one in (*waiting, images))
        if waiting and pixels > _PIXELS_AT_ONCE:
            yield waiting
            waiting = []
        waiting.append(images)
    if waiting:
        yield waiting


def _centred_products(rows: torch.Tensor) -> torch.Tensor:
    """Inner products (N, N) around the mean row, which leaves distances as they are and keeps small ones exact."""
    centred = rows - rows.mean(dim=0)
    return centred @ centred.T


def load_lpips(path: Path | None = None, device: torch.device | str = "cpu") -> LpipsNetwork:
    """LPIPS on torchvision's AlexNet from `path`, else from torch's hub cache, else on a seeded random backbone.

    Nothing is downloaded: the linear weights come with the ``lpips`` package.

    Raises:
        InputError: `path` does not hold AlexNet weights.
    """
    source = path or _cached()
    network = _random_network()
    if source is not None:
        _load_backbone(network, source)
    note = f"LPIPS: AlexNet of {source.name}" if source else "LPIPS: random AlexNet backbone, no ImageNet weights found"
    return LpipsNetwork(network.to(device).requires_grad_(False).eval(), source is not None, note)


def _cached() -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / CACHED_NAME
    return path if path.is_file() else None


def _random_network() -> lpips.LPIPS:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision with arguments of an older version
        torch.manual_seed(_RANDOM_SEED)
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)


def _load_backbone(network: lpips.LPIPS, path: Path) -> None:
    wanted = f"{path}: must be torchvision's AlexNet weights ({CACHED_NAME})"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{wanted}; got a file that cannot be read ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise InputError(f"{wanted}; got a {type(state).__name__}")
    # The package cuts torchvision's layers into slices and keeps their numbers: features.3 is slice2.3.
    names = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
    missing = sorted(set(names.values()) - set(state))
    if missing:
        raise InputError(f"{wanted}; got a file without {missing[0]}, with {', '.join(sorted(state)[:2]) or 'nothing'}")
    try:
        network.net.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    except RuntimeError:
        raise InputError(f"{wanted}; got layers of other shapes") from None
