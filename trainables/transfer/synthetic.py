"""A transfer problem with a known best region, drawn from a seed: what examples, tests and benchmarks run on.

Two directions of a latent state ``s`` of four numbers drive the measured value. The computed label knows the first of
them only; what it knows besides is an artefact, a smooth function of nuisance features ``u`` that says nothing of the
measured value, as a cheap theory errs in its own systematic way. Its noise rewards stage 1 for an encoder that keeps
what the label asks for and forgets the rest: a narrow latent, a strong decay of weights. Stage 2 needs what was
forgotten. So wide latents and weak decay transfer best (`BEST`), whatever stage 1 says of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.fingerprints import fingerprint
from trainables.transfer.data import TransferData

STATE, INFORMATIVE, NUISANCE = 4, 16, 16
"""Numbers in the latent state, features that show it, and features that show nothing of it."""
BEST = {"encoder_latent_dim": 64, "weight_decay": (0.0, 1.0)}
"""Where the best transfer lies, of latents up to 64 and decays up to 10; by construction, and measured by a test."""
SOLUBLE_BELOW = 0.0
"""A row is soluble where its noiseless value lies below."""


@dataclass(frozen=True)
class SyntheticTransfer:
    """`artefact` is the share of the computed label's variance that the artefact makes, `noise1` and `noise2` are
    deviations beside a label of about unit variance. One `seed`, one problem: the functions and the rows."""

    n_stage1: int = 1200
    n_stage2: int = 240
    artefact: float = 0.3
    noise1: float = 0.7
    noise2: float = 0.3
    n_groups: int = 20
    seed: int = 0

    def fingerprint(self) -> str:
        """Of what it is drawn from; the numbers may differ in their last digit from machine to machine."""
        return fingerprint([repr(self)])

    def load(self) -> TransferData:
        """Draws both tables. Every measured row is about an entity; half of them have a computed row, too."""
        return _Problem(self).tables()

    def fresh(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """More measured rows ``(n, d)``, their values without noise ``(n,)`` and labels, to test on."""
        x, y = _Problem(self).measured(n, np.random.default_rng([self.seed, 99, seed]))
        return x, y, (y < SOLUBLE_BELOW).astype(np.int64)


class _Problem:
    def __init__(self, chosen: SyntheticTransfer) -> None:
        self.chosen = chosen
        draw = np.random.default_rng([chosen.seed, 1])
        self.mix = draw.normal(size=(STATE, INFORMATIVE)) / np.sqrt(STATE)
        self.slopes = draw.normal(size=(STATE, 2)) / np.sqrt(STATE)
        self.waves = draw.normal(size=(NUISANCE, 2)) * 0.6

    def truth(self, s: np.ndarray) -> np.ndarray:
        """The measured value without noise."""
        first, second = (s @ self.slopes).T
        return first + 1.2 * np.tanh(2 * second)

    def theory(self, s: np.ndarray) -> np.ndarray:
        """What the computed label has right: one of the two directions, bent."""
        return np.tanh(1.5 * (s @ self.slopes)[:, 0])

    def artefact(self, u: np.ndarray) -> np.ndarray:
        """What it has wrong."""
        return np.tanh(u @ self.waves).sum(axis=1)

    def features(self, s: np.ndarray, u: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        seen = s @ self.mix + 0.3 * draw.normal(size=(len(s), INFORMATIVE))
        return np.concatenate([seen, u], axis=1).astype(np.float32)

    def measured(self, n: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Features and noiseless values of n measured rows."""
        s, u = draw.normal(size=(n, STATE)), draw.normal(size=(n, NUISANCE))
        return self.features(s, u, draw), self.truth(s)

    def tables(self) -> TransferData:
        c = self.chosen
        draw = np.random.default_rng([c.seed, 2])
        s, u = draw.normal(size=(c.n_stage1, STATE)), draw.normal(size=(c.n_stage1, NUISANCE))
        right, wrong = self.theory(s), self.artefact(u)
        label = np.sqrt(1 - c.artefact) * right / right.std() + np.sqrt(c.artefact) * wrong / wrong.std()
        x, y = self.measured(c.n_stage2, draw)
        return TransferData(
            stage1_x=self.features(s, u, draw),
            stage1_y=label + c.noise1 * draw.normal(size=c.n_stage1),
            stage1_keys=tuple(f"entity {row}" for row in range(c.n_stage1)),
            x=x,
            y=y + c.noise2 * draw.normal(size=c.n_stage2),
            labels=(y < SOLUBLE_BELOW).astype(np.int64),
            groups=tuple(f"group {row % c.n_groups}" for row in range(c.n_stage2)),
            keys=tuple(f"entity {c.n_stage1 - c.n_stage2 // 2 + row}" for row in range(c.n_stage2)),
            feature_names=tuple(f"x{i}" for i in range(INFORMATIVE)) + tuple(f"u{i}" for i in range(NUISANCE)),
        )
