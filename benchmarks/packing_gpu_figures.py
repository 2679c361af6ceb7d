"""Figures out of the parts that `benchmarks.packing_gpu` has measured; those whose parts are missing are left out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import common

GOAL = ">= 2.5"
MIB = 2**20

Parts = Mapping[str, Mapping[str, Any]]


def by_count(parts: Parts, kind: str, batch: int) -> dict[int, Mapping[str, Any]]:
    """Parts of one kind and batch that worked, by how many trials they had, the fewest first."""
    begins = f"{kind} batch {batch} of "
    found = {int(name.removeprefix(begins)): one for name, one in parts.items() if name.startswith(begins)}
    return {count: found[count] for count in sorted(found) if "failed" not in found[count]}


def gain(part: Mapping[str, Any], other: str) -> float:
    """How many times faster than alone: the median of what was measured in turns."""
    return statistics.median(alone / ours for alone, ours in zip(part["alone"], part[other], strict=True))


def pack_rates(parts: Parts, batch: int) -> dict[int, float]:
    """Samples per second of each size of pack."""
    packs = by_count(parts, "pack", batch)
    return {count: batch * count / statistics.median(one["packed"]) for count, one in packs.items()}


def process_rates(parts: Parts, kind: str, batch: int) -> dict[int, float]:
    """Samples per second of so many ``processes`` (or, with ``mps``, of processes that share the device)."""
    return {count: statistics.median(one["rates"]) for count, one in by_count(parts, kind, batch).items()}


def alone_rate(parts: Parts, batch: int) -> float:
    """Samples per second of one trial after another."""
    each = [statistics.median(one["alone"]) / count for count, one in by_count(parts, "pack", batch).items()]
    return batch / statistics.median(each)


def figures(parts: Parts, where: str) -> list[dict[str, Any]]:
    """All that can be said."""
    found: list[dict[str, Any]] = []
    for batch, name in ((1, "packed_gpu"), (4, "packed_gpu_batch_4")):
        if by_count(parts, "pack", batch):
            found += _of(parts, batch, name, where)
    return found


def _of(parts: Parts, batch: int, name: str, where: str) -> Iterator[dict[str, Any]]:
    packs, rates = by_count(parts, "pack", batch), pack_rates(parts, batch)
    gains = {count: gain(one, "packed") for count, one in packs.items()}
    best, runs = max(gains, key=lambda count: gains[count]), len(next(iter(packs.values()))["packed"])
    where = f"{where}, batch {batch}"

    def figure(end: str, measured: float, unit: str, note: str, goal: str | None = None) -> dict[str, Any]:
        return common.result(name + end, measured=round(measured, 3), goal=goal, unit=unit, runs=runs, note=note)

    told = ", ".join(f"K={count}: {gains[count]:.2f} ({rates[count]:.2f} samples/s)" for count in packs)
    note = f"{where}; best K={best}; {told}; not measured: {_failures(parts, batch) or 'nothing'}"
    if (roof := _roof(parts, batch)) is not None:
        note += f"; the device's matrix peak allows {roof:.2f} at most"
    yield figure("", gains[best], "samples/s packed / one trial at a time", note, GOAL if batch == 1 else None)
    for kind, end in (("processes", "_vs_processes"), ("mps", "_vs_mps")):
        if others := process_rates(parts, kind, batch):
            told = ", ".join(f"{count}: {rate:.2f} samples/s" for count, rate in others.items())
            most = f"{where}; K={best} against the best number of processes; {told}"
            yield figure(end, max(rates.values()) / max(others.values()), "samples/s packed / processes", most)
    if compiled := _compiled(parts, batch):
        told = "its denoiser: " + ", ".join(f"{how} {times:.2f} times eager" for how, times in compiled.items())
        unit = "samples/s packed / one compiled trial at a time"
        yield figure("_vs_compiled", gains[best] / max(compiled.values()), unit, f"{where}; K={best}; {told}")
    if len(packs) > 1:
        yield figure("_memory", _each(packs, "peak") / MIB, "MiB a further trial in a pack", _memory(parts, batch))
    if roof is not None:
        note = f"K={best}; one trial at a time {_share(parts, batch, alone_rate(parts, batch)):.3f}; {_peak(parts)}"
        yield figure("_peak_share", _share(parts, batch, rates[best]), "of the matrix peak", note)
        yield figure("_roofline", roof, "times one trial at a time, at most", _limits(parts, batch))


def _failures(parts: Parts, batch: int) -> str:
    of = f" batch {batch}"
    found = {name: one["failed"] for name, one in parts.items() if of in name and "failed" in one}
    return ", ".join(f"{name} ({why})" for name, why in found.items())


def _compiled(parts: Parts, batch: int) -> dict[str, float]:
    begins = f"compiled batch {batch} "
    worked = {name: one for name, one in parts.items() if name.startswith(begins) and "failed" not in one}
    return {name.removeprefix(begins): gain(one, "compiled") for name, one in worked.items()}


# --- memory ----------------------------------------------------------------------------------------------------------


def _each(found: Mapping[int, Mapping[str, Any]], what: str) -> float:
    """Bytes of each trial beyond the first."""
    least, most = min(found), max(found)
    return float(found[most][what] - found[least][what]) / (most - least)


def _memory(parts: Parts, batch: int) -> str:
    packs, processes = by_count(parts, "pack", batch), by_count(parts, "processes", batch)
    told = ", ".join(f"K={count}: {one['peak'] / MIB:.0f} MiB" for count, one in packs.items())
    if len(processes) < 2:
        return f"tensors at the peak; {told}"
    held = f"{_each(processes, 'used') / MIB:.0f} MiB of the device"
    return f"tensors at the peak; {told}; a further process takes {held}"


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _ceiling(parts: Parts, batch: int) -> float | None:
    """Samples per second at the matrix peak; None where peak or operations are not known."""
    peak, flops = parts.get("peak", {}), parts.get(f"flops batch {batch}", {})
    return peak["flops"] / flops["flops"] if "flops" in peak and "flops" in flops else None


def _roof(parts: Parts, batch: int) -> float | None:
    """How many times one trial at a time any arrangement of the same arithmetic can be."""
    ceiling = _ceiling(parts, batch)
    return None if ceiling is None else ceiling / alone_rate(parts, batch)


def _share(parts: Parts, batch: int, rate: float) -> float:
    ceiling = _ceiling(parts, batch)
    assert ceiling is not None
    return rate / ceiling


def _peak(parts: Parts) -> str:
    return f"the peak is {parts['peak']['flops'] / 1e12:.3g} TFLOP/s, those of a large bf16 product, measured"


def _limits(parts: Parts, batch: int) -> str:
    each = parts[f"flops batch {batch}"]["flops"] / 1e12
    said = f"matrix peak over the operations of a sample ({each:.3g} TFLOP, counted), in samples/s of one at a time"
    if "alone" not in (wide := parts.get("wide", {})):
        return said
    rate = wide["batch"] / statistics.median(wide["alone"])
    return f"{said}; one trial with batches of {wide['batch']} reaches {rate / alone_rate(parts, batch):.2f}"
