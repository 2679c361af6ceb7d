"""Texts as numbers, and encoders that make latents of them. No vocabulary is learnt, nothing is fetched."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
from torch import nn

BUCKETS = 4096
"""Of hashed words."""
BYTES = 257
"""Values of a byte and, first, of padding."""
WORDS = re.compile(r"\w+", re.UNICODE)


def word_ids(texts: Sequence[str], length: int) -> torch.Tensor:
    """``(n, length)`` buckets of the first `length` words (lower case, CRC-32), from 1; 0 is padding."""
    return _padded([[zlib.crc32(w.encode()) % BUCKETS + 1 for w in WORDS.findall(t.lower())] for t in texts], length)


def byte_ids(texts: Sequence[str], length: int) -> torch.Tensor:
    """``(n, length)`` bytes of UTF-8 in lower case, from 1; 0 is padding."""
    return _padded([[byte + 1 for byte in text.lower().encode()] for text in texts], length)


def _padded(rows: Sequence[list[int]], length: int) -> torch.Tensor:
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        cut = row[:length]
        ids[index, : len(cut)] = torch.tensor(cut, dtype=torch.long)
    return ids


class BagOfWords(nn.Module):
    """Mean of word embeddings, then two layers: blind to order, and fast."""

    def __init__(self, out: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(BUCKETS + 1, width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, out))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """``(n, length)`` word ids to ``(n, out)``."""
        found: torch.Tensor = self.layers(self.embedding(ids))
        return found


class CharCnn(nn.Module):
    """Convolutions over three, five and seven bytes, the strongest answer of each anywhere in the text (Zhang, Zhao and
    LeCun 2015 in small)."""

    def __init__(self, out: int, width: int = 32, filters: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, width, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, size, padding=size // 2) for size in (3, 5, 7))
        self.out = nn.Linear(3 * filters, out)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """``(n, length)`` bytes to ``(n, out)``."""
        embedded = self.embedding(ids).transpose(1, 2)
        strongest = [torch.relu(one(embedded)).amax(dim=2) for one in self.convolutions]
        found: torch.Tensor = self.out(torch.cat(strongest, dim=1))
        return found


class SmallTransformer(nn.Module):
    """Two layers of self-attention over bytes with learnt places, averaged over the text."""

    def __init__(self, out: int, length: int, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, width, padding_idx=0)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, out)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """``(n, length)`` bytes to ``(n, out)``."""
        # Padding is masked; beyond the longest text of the batch there is nothing else.
        ids = ids[:, : max(1, int((ids != 0).sum(dim=1).max()))]
        padding = ids == 0
        # Of an empty text one place is looked at, or attention would be over nothing and NaN.
        ignored = padding.clone()
        ignored[:, 0] = False
        found = self.layers(self.embedding(ids) + self.places[: ids.shape[1]], src_key_padding_mask=ignored)
        share = (~ignored).unsqueeze(2).to(found.dtype)
        pooled: torch.Tensor = self.out((found * share).sum(dim=1) / share.sum(dim=1))
        return pooled


def build(name: str, out: int, length: int, dropout: float) -> nn.Module:
    """A text encoder by the name that settings give."""
    if name == "mlp":
        return BagOfWords(out)
    return CharCnn(out) if name == "char_cnn" else SmallTransformer(out, length, dropout=dropout)


def ids_of(name: str, texts: Sequence[str], length: int) -> torch.Tensor:
    """Texts as the encoder of that name reads them."""
    return word_ids(texts, length) if name == "mlp" else byte_ids(texts, length)
