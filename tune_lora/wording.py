"""How results are put into words, wherever they are printed: one place, so that screen and report agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tune_lora import baseline
from tune_lora.records import pareto
from tune_lora.shell import command
from tune_lora.store import State, StudyRecord, TrialRecord

UNCALIBRATED = "uncalibrated"
NOT_VERIFIED = "not verified"

_RANK_OF_ALPHA = {"network_alpha": "network_dim", "lora_alpha": "lora_rank"}
_STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running", "waiting")
_STATE_WORDS = {"complete": "completed"}


def number(value: float | None, digits: int = 4) -> str:
    """A number in few digits, ``6e-5`` rather than ``6e-05``; a dash for none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.{digits - 1}e}"
    mantissa, mark, exponent = text.partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if mark else text


def result(record: StudyRecord, trial: TrialRecord) -> str:
    """A trial's score; with several objectives its value in each, ``val_loss 0.12, cost 3``; a dash for none."""
    if not record.has_several:
        return number(trial.value)
    pairs = zip(record.objectives, trial.values, strict=False)
    return ", ".join(f"{objective.name} {number(value)}" for objective, value in pairs) or number(None)


def values(record: StudyRecord, trial: TrialRecord) -> list[str]:
    """A trial's result in each objective; of one that has none a dash for each."""
    if not record.has_several:
        return [number(trial.value)]
    return [number(value) for value in trial.values or (None,) * len(record.objectives)]


def capital(text: str) -> str:
    """A sentence's beginning."""
    return text[:1].upper() + text[1:]


def scored(record: StudyRecord, trial: TrialRecord) -> str:
    """The same as part of a sentence: ``score 0.12``, or ``val_loss 0.12, cost 3``."""
    return result(record, trial) if record.has_several else f"{record.score_name} {result(record, trial)}"


def goal(record: StudyRecord) -> str:
    """What the study is about: ``minimize the score``, or ``minimize val_loss, maximize identity``."""
    if not record.has_several:
        return f"{record.direction} the {record.score_name}"
    return ", ".join(f"{objective.direction} {objective.name}" for objective in record.objectives)


def trade(record: StudyRecord) -> list[str]:
    """What there is to choose between several objectives, one sentence each: the front, why one of its members is
    recommended, and who is best in each objective. Empty where there is nothing to choose from.
    """
    front, best = pareto(record), record.best
    if best is None or not front:
        return []
    if len(front) == 1:
        return [f"trial {best.number} ({result(record, best)}) is the best in every objective: nothing to trade"]
    done = sum(trial.state == "complete" for trial in record.trials)
    lines = [
        f"Pareto front: {len(front)} of {done} completed trials; none of them is beaten in one objective without "
        "winning in another",
        f"recommended: trial {best.number} ({result(record, best)}), the nearest to the best of every objective at "
        "once, each in shares of the front's range; what matters more to you may call for another",
    ]
    for index, objective in enumerate(record.objectives):
        leader = min(front, key=lambda trial: (objective.loss(trial.values[index]), trial.number))
        lines.append(f"best {objective.name}: trial {leader.number} ({result(record, leader)})")
    return lines


def setting(name: str, config: Mapping[str, Any]) -> str:
    """One value of a configuration; alpha with its ratio to the rank beside it: ``96 (ratio 0.750)``."""
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "none" if value is None else str(value)
    rank = config.get(_RANK_OF_ALPHA.get(name, ""))
    if isinstance(rank, int | float) and rank > 0:
        return f"{number(value)} (ratio {value / rank:.3f})"
    return str(value) if isinstance(value, int) else number(value)


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """A whole configuration in words, by name."""
    return {name: setting(name, config) for name in config}


def shared_settings(record: StudyRecord) -> dict[str, str]:
    """Values that all of several trials have in common: worth saying once."""
    if len(record.trials) < 2:
        return {}
    first, *others = (settings(trial.config) for trial in record.trials)
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def counts(record: StudyRecord) -> dict[str, int]:
    """Number of trials by state in words, states without a trial left out."""
    return {_STATE_WORDS.get(state, state): record.count(state) for state in _STATES if record.count(state)}


def counts_line(record: StudyRecord) -> str:
    """``24 trials: 10 completed, 9 pruned, 4 failed, 1 running``."""
    n = len(record.trials)
    parts = ", ".join(f"{count} {state}" for state, count in counts(record).items())
    return f"{n} trial{'' if n == 1 else 's'}" + (f": {parts}" if parts else "")


def failures_by_cause(record: StudyRecord) -> dict[str, int]:
    """Failed trials by cause in words, the most frequent first."""
    failed = [trial for trial in record.trials if trial.state == "failed"]
    return dict(Counter(cause(trial) or "unknown" for trial in failed).most_common())


def cause(trial: TrialRecord) -> str:
    """Why a trial ended, in words; empty for one that completed or runs."""
    return trial.cause.value.replace("_", " ") if trial.cause else ""


def rejections(record: StudyRecord) -> dict[str, int]:
    """Infeasible draws by rule, the most frequent first."""
    return dict(sorted(record.rejections.items(), key=lambda item: -item[1]))


def knowledge(record: StudyRecord) -> list[str]:
    """What was carried into the study, one sentence a source, and what was let go."""
    return [carried(source) for source in record.knowledge] + list(record.let_go.values())


_SCALES = {"ranks": ", as ranks among this study's results", "as_is": ", as they are", "shown": ""}


def carried(source: Mapping[str, Any]) -> str:
    """What one source gave a study."""
    told, shown, left_out = source["told"], source["shown"], source["left_out"]
    parts = [f"{told} past result{'' if told == 1 else 's'} told{_SCALES[source['values']]}"] if told else []
    parts += [f"{shown} shown only"] if shown else []
    parts += [f"{source['references']} trained first"] if source["references"] else []
    if left_out:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        parts.append(f"{sum(left_out.values())} left out ({why})")
    return f"{source['source']}: {', '.join(parts) or 'nothing'}"


def is_text(record: StudyRecord) -> bool:
    """Whether a study trained language models."""
    return record.spec.get("trainer") == "llm_lora"


def draws(record: StudyRecord) -> bool:
    """Whether a study trained models that draw."""
    return record.spec.get("trainer", "diffusion_lora") == "diffusion_lora"


def caveats(record: StudyRecord) -> list[str]:
    """What must stand beside the result: one sentence each."""
    found = []
    if record.is_uncalibrated:
        reasons = "; ".join(str(note) for note in record.calibration.get("notes", ()))
        found.append(
            f"{UNCALIBRATED}: scores compare within this study only, not with published numbers"
            + (f" ({reasons})" if reasons else "")
        )
    if record.best is not None and not record.is_verified:
        found.append(_not_verified(record))
    return found


def _not_verified(record: StudyRecord) -> str:
    later, verified = record.overtaken_by, record.verified
    if later is not None and verified is not None:
        return (
            f"verified among the earlier trials only: trial {later.number} has scored better since "
            f"({result(record, later)}) and is {NOT_VERIFIED}; trial {verified.number} stays recommended until it is"
        )
    once = "judged on one set of prompts and seeds" if draws(record) else "trained with one seed"
    return f"{NOT_VERIFIED}: the winner was {once}"


def against_baseline(record: StudyRecord) -> list[tuple[str, str, str]]:
    """(metric, untrained base, winner) for what was measured on both in the search; the score first."""
    best = record.winner
    if best is None:
        return []
    worth = record.winner_in_the_search
    measured = {**best.metrics, **({} if worth is None else {record.score_name: worth})}
    shared = [name for name in record.baseline if measured.get(name) is not None]
    shared.sort(key=lambda name: name != record.score_name)
    return [(name, number(record.baseline[name]), number(measured[name])) for name in shared]


def improvement(record: StudyRecord) -> str:
    """How the winner's score compares with the untrained base's, in percent of it; empty where it cannot be told.

    Like is compared with like: both by the prompts and seeds of the search, or both by the new ones.
    """
    best, base, where = record.winner_beside_untrained
    if best is None or not base:
        return ""
    change = (base - best) / abs(base) if record.direction == "minimize" else (best - base) / abs(base)
    told = f"{abs(change):.1%} {'better' if change >= 0 else 'worse'} than the {record.untrained_name}"
    return f"{told} ({number(best)} against {number(base)} {where})" if where else f"{told} ({number(base)})"


def over_baseline(record: StudyRecord, trial: TrialRecord | None) -> str:
    """How a trial compares with the study's own baseline trial; empty where there is none, or where it is that one."""
    base = baseline.baseline_trial(record)
    if base is None or trial is None or trial.number == base.number:
        return ""
    gain = baseline.improvement(record, trial)
    if gain is None:
        return ""
    word = "better" if gain >= 0 else "worse"
    return f"{abs(gain):.1f}% {word} than the baseline (trial {base.number}, {number(base.value)})"


def percent(value: float | None) -> str:
    """A change with its sign: ``+61.7%``; a dash for none."""
    return "–" if value is None else f"{value:+.1f}%"


def against_baseline_trial(record: StudyRecord) -> list[tuple[str, str, str, str, str]]:
    """(hyperparameter, baseline, best, change, what other trials with another value did) for each hyperparameter."""
    return [
        (
            change.name,
            _value(change.baseline),
            _value(change.best),
            "same" if change.baseline == change.best else percent(change.percent),
            f"{change.better} of {change.better + change.worse} better" if change.better + change.worse else "–",
        )
        for change in baseline.changes(record)
    ]


def measures_against_baseline(record: StudyRecord) -> list[tuple[str, str, str, str]]:
    """(metric, baseline, best, change) for each metric that both have."""
    return [
        (one.name, number(one.baseline), number(one.best), percent(one.percent)) for one in baseline.measures(record)
    ]


def stages(record: StudyRecord) -> str:
    """Of a two-stage study: how much stage-1 error the winner gives up, or gains, for what stage 2 makes of it."""
    found = {one.name: one for one in baseline.measures(record)}
    if record.spec.get("trainer") != "two_stage" or not {"stage1_mae", "exp_mae"} <= found.keys():
        return ""

    def change(name: str) -> str:
        one = found[name]
        return f"{number(one.baseline)} → {number(one.best)} ({percent(one.percent)})"

    return f"against the default, stage-1 error {change('stage1_mae')}, error of the measured value {change('exp_mae')}"


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else "–" if value is None else str(value)


def next_commands(record: StudyRecord, folder: str) -> list[tuple[str, str]]:
    """(command, what it does) for going on from a results folder."""
    commands = [(command("resume", folder, "--n-trials", "+20"), "search on, with 20 trials more")]
    if record.best is not None:
        commands += [
            (command("top", folder), "the best trials side by side"),
            (command("findings", folder), "what the study says in words, and what to do"),
            (command("next", folder), "write the study that comes next: ranges moved, results carried over"),
            (command("train", folder), "train the best configuration to its end, with more epochs if you like"),
        ]
    if record.best is not None and not record.is_verified and not record.has_several:
        how = () if draws(record) else ("--retrain",)
        commands.append((command("verify", folder, *how), "measure the leaders again, before one is trusted"))
    if record.best is not None and (draws(record) or is_text(record)):
        what = "draw with the winner" if draws(record) else "let the winner write"
        commands.append((command("generate", folder), what))
    return commands


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
