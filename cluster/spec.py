"""What one trial needs and what a machine or cluster has. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

CPU_ONLY = "cpu"
"""The kind of a node without GPUs."""


@dataclass(frozen=True)
class TrialResources:
    """CPUs, GPUs and bytes of memory of one trial; `gpu` may be a share up to 1, `memory` 0 asks for none."""

    cpu: float
    gpu: float
    memory: int = 0


@dataclass(frozen=True)
class Node:
    """One machine: what it has in all, memory in bytes. `kind` tells machines with other GPUs apart."""

    name: str
    cpu: float
    gpu: float
    memory: float = math.inf
    kind: str = CPU_ONLY


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs that are there in all, and the machines that they are on; without `nodes` it is one machine."""

    cpu: float
    gpu: float
    nodes: tuple[Node, ...] = ()

    @classmethod
    def of(cls, nodes: tuple[Node, ...]) -> Capacity:
        """What machines have together."""
        return cls(sum(node.cpu for node in nodes), sum(node.gpu for node in nodes), nodes)

    @property
    def machines(self) -> tuple[Node, ...]:
        """The machines, at least one."""
        return self.nodes or (Node("", self.cpu, self.gpu),)


@dataclass(frozen=True)
class Footprint:
    """What a trial was measured to need at its peak, in bytes, and how much memory the GPU has that it ran on (0: it
    ran on none)."""

    memory: int
    gpu: int = 0
    device: int = 0
