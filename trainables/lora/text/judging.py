"""Text adapters judged together: held-out losses, speed and completions, each as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.lora.ground import Panel
from trainables.lora.packed_layers import Share
from trainables.lora.text.batches import Batch
from trainables.lora.text.completions import Prompt, complete_each, tokens_per_second
from trainables.protocol import TrialFailure

if TYPE_CHECKING:
    from trainables.lora.text.task import TextTask

SAMPLE_TOKENS = 64
Looked = tuple[dict[str, float], dict[str, Path]]


def validated(tasks: Sequence[TextTask], panel: Panel) -> list[dict[str, float] | TrialFailure]:
    """Held-out loss of each task, and what its training costs; all share a session."""
    session = tasks[0].session
    for task in tasks:
        task.rest()

    def tell(asked: range, batch: Batch) -> None:
        shares = [Share(tasks[place].slot, *batch.ids.shape) for place in asked]
        panel.routing.tell([session.base.model], shares)

    found = session.validation_losses(len(tasks), tell)
    panel.charge({task.slot: 1 for task in tasks})
    return [
        loss if isinstance(loss, TrialFailure) else task.measured(loss) for task, loss in zip(tasks, found, strict=True)
    ]


def looked(asked: Sequence[tuple[TextTask, int]], panel: Panel) -> list[Looked | TrialFailure]:
    """Lets each task's model write: how fast it is by itself, and those that are complete what they say to held-out
    prompts."""
    session = asked[0][0].session
    prompts = [Prompt(text, session.data.template == "chat") for text in session.data.prompts]
    found: list[Looked | TrialFailure] = []
    for task, _ in asked:
        with panel.alone(task.slot):  # a speed is that of one text at a time, whoever is beside
            speed = tokens_per_second(session.base, prompts[0], session.autocast())
        found.append(({"tokens_per_second": speed}, {}))
        panel.charge({task.slot: 1})
    complete = [task for task, budget in asked if budget >= task.trainer.horizon(task.params)]
    if complete:
        _say(complete, prompts[: complete[0].trainer.samples], panel)
    return found


def _say(tasks: Sequence[TextTask], prompts: Sequence[Prompt], panel: Panel) -> None:
    """All of them write completions, each into its folder."""
    session = tasks[0].session
    panel.routing.tell([session.base.model], [Share(task.slot, 1) for task in tasks])
    said = complete_each(
        session.base, prompts, session.autocast(), adapters=len(tasks), max_new_tokens=SAMPLE_TOKENS
    )  # fmt: skip
    for task, texts in zip(tasks, said, strict=True):
        task.keep([prompt.text for prompt in prompts], texts)
    panel.charge({task.slot: 1 for task in tasks})
