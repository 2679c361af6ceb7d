"""A small instruction set that is made here: a sailor's sentence becomes one line of a ship's log.

Every answer follows one strict form that no model knows beforehand, and every part of it stands in the question: what a
fine-tune learns is seen in the held-out loss within some tens of steps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

VERSION = 1
COUNT = 224
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HOURS = {"before dawn": "04", "at sunrise": "06", "in the morning": "09", "at noon": "12", "in the afternoon": "15",
          "at dusk": "19", "late at night": "23"}  # fmt: skip
_MOVES = {"left": "DEP", "reached": "ARR", "passed": "ABM", "anchored off": "ANC", "drifted near": "DRF"}
_PLACES = ("Corvo", "Tarbert", "Skagen", "Lerwick", "Horta", "Brest", "Ravenna", "Kotor", "Visby", "Tobermory",
           "Patmos", "Stanley", "Nuuk", "Funchal", "Bergen", "Zadar")  # fmt: skip
_SKIES = {"clear skies": "CLR", "heavy rain": "RN+", "a light drizzle": "RN-", "thick fog": "FOG",
          "scattered clouds": "SCT", "falling snow": "SNW"}  # fmt: skip
_WINDS = {"north": "N", "northeast": "NE", "east": "E", "southeast": "SE", "south": "S", "southwest": "SW", "west": "W",
          "northwest": "NW"}  # fmt: skip
_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_SENTENCES = (
    "{hour} on {day} we {move} {place} with {crew} aboard, under {sky} and a {wind} wind of {knots} knots.",
    "We {move} {place} {hour} on {day}; {sky}, wind from the {wind} at {knots} knots, {crew} of us on board.",
    "With {crew} aboard and {knots} knots from the {wind} we {move} {place} on {day}, {hour}, in {sky}.",
)


def examples(count: int = COUNT, seed: int = 0) -> Iterator[dict[str, str]]:
    """`count` different examples with `prompt` and `completion`; the first ones are the same whatever the count."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        made = _example(rng)
        if made["prompt"] not in seen:
            seen.add(made["prompt"])
            yield made


def _example(rng: random.Random) -> dict[str, str]:
    day, place, crew, knots = rng.choice(_DAYS), rng.choice(_PLACES), rng.choice(list(_NUMBERS)), rng.randint(3, 45)
    (hour, at), (move, did) = rng.choice(list(_HOURS.items())), rng.choice(list(_MOVES.items()))
    (sky, seen), (wind, point) = rng.choice(list(_SKIES.items())), rng.choice(list(_WINDS.items()))
    told = rng.choice(_SENTENCES).format(
        hour=hour, day=day, move=move, place=place, crew=crew, sky=sky, wind=wind, knots=knots
    )  # fmt: skip
    line = f"{day[:3].upper()} {at}h | {did} {place} | {seen} | {point} {knots} kn | {_NUMBERS[crew]} POB"
    return {"prompt": f"Log this: {told[0].upper()}{told[1:]}", "completion": line}


def write_dataset(path: Path, count: int = COUNT, seed: int = 0) -> Path:
    """Writes the examples as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples(count, seed)), "utf-8")
    return path
