"""What one trial needs and what a machine or cluster has. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrialResources:
    """CPUs and GPUs of one trial; `gpu` may be a share up to 1."""

    cpu: float
    gpu: float


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs that are there in all."""

    cpu: float
    gpu: float
