"""What a verification says, in words: one place, so that screen, files and report agree."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from tune_lora import verification as verifications
from tune_lora.records import StudyRecord
from tune_lora.shell import command
from tune_lora.verification import CLEAR, Candidate, Luck, Verdict, Verification
from tune_lora.wording import number

_AGAIN = {"checkpoint": "judged again", "retrained": "trained again"}


def heading(verdict: Verdict) -> str:
    """What was done: ``The leaders judged again, 5 new seeds each``."""
    return f"The leaders {_AGAIN[verdict.kind]}, {len(verdict.seeds)} new seeds each"


def lines(found: Verification, place: str) -> list[str]:
    """The recommendation, how sure it is, how lucky the search's leader was, and what to do next; `place` is what the
    study is named by."""
    verdict, winner = found.deciding, found.deciding.winner
    if winner is None:
        return ["no leader could be measured again, so none is recommended"]
    told = [
        f"recommended: trial {winner.trial}, {found.metric} {number(winner.mean)} ({found.confidence:.0%} interval "
        f"{interval(winner)}); the best of the {len(verdict.candidates)} with probability {chance(winner.best)}"
    ]
    if verdict.rivals:
        others = ", ".join(f"trial {one.trial} ({chance(one.best)})" for one in verdict.rivals)
        how = ("--retrain",) if verdict.kind == "retrained" else ()
        told.append(
            f"not clear yet: {others} may be as good; more seeds tell them apart: "
            + command("verify", place, "--top", found.asked[0], "--seeds", 2 * len(verdict.seeds), *how)
        )
    if verdict.luck is not None:
        told += luck(verdict.luck, found)
    if found.untrained:
        told.append(f"the untrained base, by the same prompts and seeds: {number(fmean(found.untrained.values()))}")
    if len({one.trial for one in found.verdicts}) > 1:
        told.append(_two_verdicts(found))
    return told


def luck(found: Luck, verification: Verification) -> list[str]:
    """How much of the search's leader was luck."""
    first = f"trial {found.trial} led the search with {number(found.searched)}; measured again it has "
    first += f"{number(found.measured)}"
    if not (found.lead or found.lead_now):
        return [first]
    of = f"its lead over the others' mean was {number(found.lead)} and is {number(found.lead_now)} now"
    if found.lead > 0 and found.lead_now < found.lead:
        of += f": {min(1.0, 1 - found.lead_now / found.lead):.0%} of it was luck"
    asks = " (other prompts move all of them alike, which leads are free of)"
    return [f"{first}; {of}{asks if verification.deciding.kind == 'checkpoint' else ''}"]


def _two_verdicts(found: Verification) -> str:
    """Which trial each way of measuring would recommend: files and configurations may differ."""
    says = [f"{_AGAIN[one.kind]} it is trial {one.trial}" for one in found.verdicts]
    return f"{', '.join(says)}: the first is about the file at hand, the last about training with its settings"


def note(record: StudyRecord) -> str:
    """One sentence on a verified winner; empty where there is none."""
    found, verified = verifications.of(record), record.verified
    if verified is None:
        return ""
    if found is None or found.deciding.winner is None:
        return f"verified: trial {verified.number}"
    winner = found.deciding.winner
    sure = f"the best of {len(found.deciding.candidates)} with probability {chance(winner.best)}"
    return (
        f"verified: trial {winner.trial}, {found.metric} {number(winner.mean)} ({interval(winner)}) "
        f"{_AGAIN[found.deciding.kind]} with {len(found.deciding.seeds)} new seeds; {sure}"
        + ("" if winner.best >= CLEAR else ", which is not clear")
    )


def cells(one: Candidate) -> tuple[str, str, str, str]:
    """Its value in the search, now, the interval, and the probability that it is the best."""
    return number(one.searched), number(one.mean), interval(one), chance(one.best)


def interval(one: Candidate) -> str:
    """``0.131 to 0.148``."""
    return f"{number(one.low)} to {number(one.high)}"


def chance(probability: float) -> str:
    """A probability in whole percent, never a certainty."""
    return "> 99%" if probability > 0.99 else "< 1%" if probability < 0.01 else f"{probability:.0%}"


def marks(record: StudyRecord, trials: Iterable[int]) -> dict[int, str]:
    """By trial what was found when it was measured again; empty without a verification."""
    found = verifications.of(record)
    if found is None:
        return {}
    known = {one.trial: f"{number(one.mean)} ({chance(one.best)})" for one in found.deciding.candidates}
    known |= dict.fromkeys(found.deciding.failed, "failed")
    return {trial: known[trial] for trial in trials if trial in known}
