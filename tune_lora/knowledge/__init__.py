"""What is known before the first trial: reference configurations to train first, and past results told to the sampler.

It comes from the space, from files, and from earlier studies whose space may have been another. Every point carries
where it is from; what cannot be carried over is left out with its reason; and a source that misleads is let go.
"""

from tune_lora.knowledge._advice import Advice
from tune_lora.knowledge._gather import gather
from tune_lora.knowledge._points import CARRIED, Knowledge, LeftOut, Point, Reference, Source
from tune_lora.knowledge._translate import CannotCarry, translate

__all__ = [
    "CARRIED",
    "Advice",
    "CannotCarry",
    "Knowledge",
    "LeftOut",
    "Point",
    "Reference",
    "Source",
    "gather",
    "translate",
]
