"""Who can share a frozen base with whom: what image and text trials have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from trainables.protocol import Params


def differing(name: str, got: object, wanted: object) -> list[str]:
    """A line where a setting is not that of the trials on the base."""
    if got == wanted:
        return []
    return [f"{name}: got {_shown(got)}; must be {_shown(wanted)}, that of the trials it would share a base with"]


def alike(params: Params, models: Iterable[nn.Module], *, recomputes: bool, dropout: str) -> list[str]:
    """Why a configuration cannot train beside others on these models; `recomputes` is whether those compute activations
    twice, `dropout` the name of the adapter's own."""
    recompute = bool(params.get("gradient_checkpointing", False))
    found = differing("gradient_checkpointing", recompute, recomputes)
    if recompute and float(params.get(dropout, 0.0)) > 0:
        found.append(
            f"{dropout}: got {params[dropout]} with gradient_checkpointing; must be 0 beside other trials, whose masks"
            " would not be drawn the same a second time"
        )
    for model in models:
        if (name := next(_dropping(model), None)) is not None:
            found.append(
                f"base: {type(model).__name__} drops activations in training (first {name or 'itself'}); must not,"
                " since the masks of one trial would depend on the others"
            )
    return found


def _dropping(model: nn.Module) -> Iterator[str]:
    """Modules of a frozen model that draw in training: dropout layers, and attention that is given a share."""
    for name, module in model.named_modules():
        shares = [value for key, value in vars(module).items() if "drop" in key and isinstance(value, float)]
        if isinstance(module, nn.modules.dropout._DropoutNd):
            shares.append(module.p)
        if any(share > 0 for share in shares):
            yield name


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
