"""Findings: each sign of a good or a problematic study is said where it holds, with its numbers, and only there."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import findings_hold as made_up
from tests.tune_lora.conftest import Example
from trainables.protocol import Cause
from tune_lora import analysis
from tune_lora.cli import main
from tune_lora.errors import InputError
from tune_lora.records import Objective, StudyRecord, TrialRecord

SPACE: dict[str, Any] = {
    "name": "small",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "rank": {"type": "categorical", "choices": [32, 64, 128]},
        "dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
    },
}
START = dt.datetime(2026, 3, 1, 21, 0, 0)  # noqa: DTZ001 - Optuna keeps local times without a zone

Score = Callable[[Mapping[str, Any]], float]


def trial(number: int, params: Mapping[str, Any], value: float | None, **settings: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "number": number,
        "state": "complete",
        "value": value,
        "params": dict(params),
        "config": dict(params),
        "metrics": {} if value is None else {"score": value},
        "seconds": 60.0,
        "finished": START + dt.timedelta(minutes=number),
    }
    return TrialRecord(**(values | settings))


def failed(number: int, params: Mapping[str, Any], cause: Cause) -> TrialRecord:
    return trial(number, params, None, state="failed", cause=cause)


def drawn(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "learning_rate": float(10 ** rng.uniform(-5, -1)),
            "rank": int(rng.choice([32, 64, 128])),
            "dropout": float(rng.uniform(0, 0.5)),
        }
        for _ in range(n)
    ]


def study(trials: Sequence[TrialRecord], **settings: Any) -> StudyRecord:
    spec = {"name": "s", "trainer": "curve", "space": SPACE, "search": {"sampler": "tpe"}}
    return StudyRecord("s", settings.pop("direction", "minimize"), tuple(trials), spec=spec, **settings)


def scored(n: int, score: Score, seed: int = 0) -> StudyRecord:
    return study([trial(number, params, score(params)) for number, params in enumerate(drawn(n, seed))])


def found(record: StudyRecord) -> dict[str, analysis.Finding]:
    all_of = analysis.findings(record)
    assert len({one.key for one in all_of}) == len(all_of), "a key names one sign"
    json.dumps([one.as_dict() for one in all_of], allow_nan=False)
    return {one.key: one for one in all_of}


def bowl(params: Mapping[str, Any]) -> float:
    return float((np.log10(params["learning_rate"]) + 3) ** 2 + 0.01 * params["dropout"])


# --- the course of a study -------------------------------------------------------------------------------------------


def test_a_study_without_trials_says_so() -> None:
    assert set(found(study([]))) == {"no_trials", "course"}
    assert analysis.success_table(study([])) is None


def test_a_best_that_improves_and_then_stands_still() -> None:
    values = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, *[5.0 + k for k in range(20)]]
    said = found(study([trial(n, p, v) for n, (p, v) in enumerate(zip(drawn(30), values, strict=True))]))
    assert said["improves"].numbers["improvements"] == 9
    assert said["plateau"].kind == "good"
    assert said["plateau"].numbers["since_best"] == 20
    assert "no_plateau" not in said


def test_a_best_that_improves_as_often_as_chance_does_is_no_good_sign() -> None:
    """30 results in random order improve three times on average; two are no evidence, whatever else is."""
    rest = sorted(drawn(28, 4), key=lambda params: -params["learning_rate"])
    params = [*drawn(2, 5), *rest]
    values = [0.9, 0.1, *[0.2 + abs(float(np.log10(one["learning_rate"]) + 3)) for one in rest]]
    said = found(study([trial(n, p, v) for n, (p, v) in enumerate(zip(params, values, strict=True))]))
    assert said["learning_rate"].kind == "good", "there is a direction"
    assert (said["improves"].numbers["improvements"], said["improves"].kind) == (1, "info")
    values[2] = 0.09
    said = found(study([trial(n, p, v) for n, (p, v) in enumerate(zip(params, values, strict=True))]))
    assert (said["improves"].numbers["improvements"], said["improves"].kind) == (2, "info")
    towards = sorted(drawn(30, 4), key=lambda one: -abs(float(np.log10(one["learning_rate"]) + 3)))
    said = found(study([trial(n, p, bowl(p)) for n, p in enumerate(towards)]))
    assert said["improves"].numbers["improvements"] > 20
    assert said["improves"].kind == "good"


def test_a_best_at_the_end_is_no_plateau() -> None:
    said = found(study([trial(n, p, 30.0 - n) for n, p in enumerate(drawn(30))]))
    assert said["no_plateau"].kind == "warning"
    assert "0 trials before the end" in said["no_plateau"].sentence
    assert "resume" in said["no_plateau"].advice


def test_the_course_is_read_in_the_order_in_which_trials_ended() -> None:
    parameters = drawn(30)
    late = [trial(n, p, float(n), finished=START - dt.timedelta(minutes=n)) for n, p in enumerate(parameters)]
    assert "no_plateau" in found(study(late))  # the best, number 0, ended last


def test_maximising_reads_the_other_way_round() -> None:
    one = scored(40, bowl)
    other = study([replace(t, value=-(t.value or 0.0)) for t in one.trials], direction="maximize")
    assert {key: f.kind for key, f in found(one).items()} == {key: f.kind for key, f in found(other).items()}


def test_few_trials_are_said_to_be_few_and_claim_nothing() -> None:
    said = found(scored(6, bowl))
    assert said["few_trials"].numbers == {"trials": 6, "hyperparameters": 3, "wanted": 30}
    for key in ("course", "top", "learning_rate", "importance", "interactions"):
        assert "not enough trials" in said[key].sentence
    assert not any(one.kind == "good" for one in said.values())


def test_infrastructure_does_not_count() -> None:
    lost = [failed(n, p, Cause.INFRASTRUCTURE) for n, p in enumerate(drawn(40))]
    said = found(study([*lost, *(replace(t, number=40 + t.number) for t in scored(6, bowl).trials)]))
    assert said["few_trials"].numbers["trials"] == 6
    assert said["failed_infrastructure"].kind == "info"


def test_results_that_are_all_the_same() -> None:
    said = found(scored(25, lambda _: 0.5))
    assert said["identical"].kind == "warning"
    assert not {"plateau", "no_plateau", "jumps", "improves"} & said.keys()


# --- how trials ended ------------------------------------------------------------------------------------------------


def test_all_failed() -> None:
    said = found(study([failed(n, p, Cause.NAN_LOSS) for n, p in enumerate(drawn(12))]))
    assert said["all_failed"].sentence == "all 12 trials failed (12 nan loss)"
    assert said["failed_nan_loss"].numbers["share"] == 1.0


def test_all_pruned_asks_for_more_warm_up_and_a_milder_pruner() -> None:
    pruned = [trial(n, p, None, state="pruned", cause=Cause.PRUNED, curve={1: 1.0}) for n, p in enumerate(drawn(12))]
    said = found(study(pruned))
    assert said["all_pruned"].kind == "warning"
    for word in ("more warm-up", "start-up", "milder", "narrower"):
        assert word in said["all_pruned"].advice


def test_failures_are_told_with_what_they_share() -> None:
    trials = [
        failed(n, p, Cause.NAN_LOSS) if p["learning_rate"] > 1e-2 else trial(n, p, bowl(p))
        for n, p in enumerate(drawn(60))
    ]
    finding = found(study(trials))["failed_nan_loss"]
    bad = [one for one in trials if one.state == "failed"]
    assert finding.kind == "warning"
    assert list(finding.numbers["shared"]) == ["learning_rate"]
    low = min(one.params["learning_rate"] for one in bad)
    assert f"they share learning_rate from {low:.4g}" in finding.sentence
    assert f"{len(bad)} of {len(bad)} there, 0 of {60 - len(bad)} elsewhere" in finding.sentence


def test_failures_at_random_share_nothing() -> None:
    trials = [
        failed(n, p, Cause.OUT_OF_MEMORY) if n % 7 == 3 else trial(n, p, bowl(p)) for n, p in enumerate(drawn(60))
    ]
    finding = found(study(trials))["failed_out_of_memory"]
    assert finding.numbers["shared"] == {}
    assert "smaller batches" in finding.advice


def test_a_bug_is_a_warning_however_rare() -> None:
    trials = [failed(0, drawn(1)[0], Cause.CRASH), *(replace(t, number=t.number + 1) for t in scored(40, bowl).trials)]
    assert found(study(trials))["failed_crash"].kind == "warning"


def test_cost_says_what_pruning_saved() -> None:
    trials = [trial(n, p, bowl(p), seconds=100.0) for n, p in enumerate(drawn(20))]
    trials += [trial(20 + n, p, None, state="pruned", seconds=40.0, curve={1: 1.0}) for n, p in enumerate(drawn(10, 1))]
    numbers = found(study(trials))["cost"].numbers
    assert numbers["seconds"] == 2400.0
    assert numbers["saved_seconds"] == 600.0


# --- the winners -----------------------------------------------------------------------------------------------------


def test_a_hand_made_configuration_that_nothing_beats() -> None:
    trials = [trial(0, drawn(1)[0], -1.0, provenance="prior:trial_3_5")]
    trials += [trial(n + 1, p, bowl(p)) for n, p in enumerate(drawn(30))]
    finding = found(study(trials))["worse_than_hand_made"]
    assert finding.kind == "warning"
    assert finding.numbers["hand_made"] == "trial_3_5"
    assert "100" in finding.advice
    trials[0] = replace(trials[0], value=100.0)
    assert found(study(trials))["beats_hand_made"].kind == "good"


def test_worse_than_the_untrained_base() -> None:
    record = scored(30, bowl)
    assert "worse_than_untrained" in found(replace(record, baseline={"score": -1.0}))
    assert "worse_than_untrained" not in found(replace(record, baseline={"score": 99.0}))


def test_the_top_five_agree_where_the_best_lie_together() -> None:
    record = scored(60, lambda p: bowl(p) + 3 * p["dropout"] + 3 * (p["rank"] != 64))
    said = found(record)
    assert said["top_together"].kind == "good"
    assert said["top_together"].numbers["apart"] < said["top_together"].numbers["usual"]


def test_noise_between_repeats_says_that_an_order_is_luck() -> None:
    parameters = drawn(30)
    trials = [trial(n, p, 1.0 + 0.001 * n) for n, p in enumerate(parameters)]
    trials += [trial(30 + n, parameters[10 + n], 1.1 + 0.001 * n, seed=n) for n in range(5)]
    finding = found(study(trials))["top_similar"]
    assert finding.numbers["noise_from"] == 5
    assert "may be luck" in finding.sentence


def test_a_verified_best_is_not_called_unverified() -> None:
    record = scored(30, bowl)
    assert record.best is not None
    assert "not_verified" in found(record)
    verified = found(replace(record, verification={"trial": record.best.number}))
    assert "not_verified" not in verified
    assert verified["verified"].sentence == f"verified: trial {record.best.number}"


def test_noise_between_the_seeds_of_a_verification() -> None:
    """What a seed does to every leader is no noise between them."""
    record = scored(30, bowl)
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 5, 40)
    candidates = [
        {"trial": one.number, "best": 0.5, "mean": 0.0, "values": dict(enumerate(seeds + rng.normal(0, 0.01, 40)))}
        for one in record.ranked()[:5]
    ]
    known = replace(record, verification={"trial": record.ranked()[1].number, "candidates": candidates})
    said = found(known)
    noise = (said.get("top_similar") or said["top_differ"]).numbers
    assert noise["noise"] == pytest.approx(0.01, rel=0.2)
    assert noise["noise_from"] == 4 * 39
    assert said["verified"].kind == "info", "a chance of one half is not clear"


# --- the hyperparameters ---------------------------------------------------------------------------------------------


def test_a_learning_rate_that_decides_is_important_and_the_others_are_not() -> None:
    said = found(scored(60, bowl))
    assert said["learning_rate"].kind == "good"
    assert list(said["importance"].numbers["told_apart"]) == ["learning_rate"]
    shares = said["importance"].numbers["shares"]
    assert max(shares, key=lambda name: shares[name][0]) == "learning_rate"
    share, low, high = shares["learning_rate"]
    assert low <= share <= high
    assert "jumps" not in said
    assert said["inside"].kind == "good"


def test_a_rate_that_does_not_matter_is_not_called_important() -> None:
    said = found(scored(60, lambda p: p["dropout"]))
    assert said["learning_rate"].kind == "info"
    assert list(said["importance"].numbers["told_apart"]) == ["dropout"]


def test_pruned_trials_speak_as_well() -> None:
    """Where bad rates were all pruned, those that completed no longer differ; the trials together do."""
    trials = [
        trial(n, p, None, state="pruned", curve={1: bowl(p)}) if bowl(p) > 0.3 else trial(n, p, 0.1 + p["dropout"])
        for n, p in enumerate(drawn(80))
    ]
    assert found(study(trials))["learning_rate"].kind == "good"


def test_the_best_at_an_edge() -> None:
    said = found(scored(60, lambda p: float(np.log10(p["learning_rate"]))))
    edge = said["edge_learning_rate"]
    assert edge.kind == "warning"
    assert edge.numbers["end"] == "low"
    assert edge.numbers["near"] > edge.numbers["top"] / 2
    assert edge.advice == "widen learning_rate downwards"
    assert "inside" not in said


def test_a_range_that_nobody_knows_has_no_edges() -> None:
    record = replace(scored(60, lambda p: float(np.log10(p["learning_rate"]))), spec={"space": "/gone/space.yaml"})
    said = found(record)
    assert said["learning_rate"].kind == "good"
    assert not any(key.startswith("edge_") for key in said)


def test_values_between_choices_are_offered_where_the_choice_matters() -> None:
    said = found(scored(60, lambda p: abs(p["rank"] - 70) / 100 + 0.01 * p["dropout"]))
    assert said["between_rank"].numbers["best"] == 64
    assert said["between_rank"].numbers["offer"] == [48, 96]
    assert "between_rank" not in found(scored(60, bowl))


def test_a_reference_outside_the_space_that_did_well() -> None:
    outside = {"learning_rate": 0.5, "rank": 64, "dropout": 0.1}
    inside = {name: outside[name] for name in ("rank", "dropout")}
    prior = trial(60, inside, -1.0, config=outside, provenance="prior:bold")
    finding = found(study([*scored(60, bowl).trials, prior]))["outside_60"]
    assert finding.kind == "warning"
    assert finding.numbers == {"trial": 60, "place": 1, "values": {"learning_rate": 0.5}}


def test_two_that_act_together_are_named_and_others_are_not() -> None:
    def together(params: Mapping[str, Any]) -> float:
        return float((np.log10(params["learning_rate"]) + 3) * (params["dropout"] - 0.25))

    assert next(iter(found(scored(80, together))["interactions"].numbers["found"])) == "learning_rate * dropout"
    assert found(scored(80, bowl))["interactions"].numbers["found"] == {}


def test_several_objectives_are_read_by_their_front() -> None:
    trials = [trial(n, p, None, values=(bowl(p), bowl(p) + p["dropout"])) for n, p in enumerate(drawn(40))]
    record = study(trials, objectives=(Objective("score"), Objective("cost")))
    assert next(iter(found(record)["importance"].numbers["told_apart"])) == "learning_rate"


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 45), failing=st.floats(0, 1), pruning=st.floats(0, 1))
def test_any_study_can_be_read(seed: int, n: int, failing: float, pruning: float) -> None:
    """Whatever the mix of ends, findings come out, are plain data, and name trials that exist."""
    rng = np.random.default_rng(seed)
    trials = []
    for number, params in enumerate(drawn(n, seed)):
        if rng.random() < failing:
            trials.append(failed(number, params, list(Cause)[rng.integers(1, len(Cause))]))
        elif rng.random() < pruning:
            trials.append(trial(number, params, None, state="pruned", cause=Cause.PRUNED, curve={1: rng.random()}))
        else:
            trials.append(trial(number, params, float(rng.normal())))
    record = study(trials)
    for one in found(record).values():
        assert one.sentence
        assert set(one.numbers.get("trials", [])) <= set(range(n)) if one.key.startswith("failed_") else True


# --- how often claims are false --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", pytest.param("tpe", marks=pytest.mark.slow)])
def test_noise_is_rarely_taken_for_an_effect(sampler: str) -> None:
    """At a level of 5%, 10 or more of 30 studies would be claimed once in a million cases."""
    claims = [made_up.claims(made_up.study(made_up.noise, sampler=sampler, seed=1000 + seed)) for seed in range(30)]
    for claim in ("importance", "interaction", "edge", "learns", "top_together"):
        assert sum(one[claim] for one in claims) < 10, claim
    assert sum(one["jumps"] for one in claims) > 15


def test_what_was_planted_is_found() -> None:
    claims = [made_up.claims(made_up.study(made_up.bowl, seed=seed)) for seed in range(12)]
    assert sum(one["learning_rate"] for one in claims) >= 8
    assert not any(one["jumps"] for one in claims if one["learning_rate"])


# --- the success table -----------------------------------------------------------------------------------------------

BANDS = {"brightness_mean": [0.4, 0.6], "lpips_diversity": [0.3, 0.5]}
GOOD = {"failures": 0.0, "brightness_mean": 0.5, "lpips_diversity": 0.4, "clip_consistency": 0.36, "identity": 0.8}


def lora(n_good: int, n_dark: int, n_exploded: int, **calibration: Any) -> StudyRecord:
    parameters = iter(
        {"learning_rate": rate, "network_dim": 64, "network_alpha": 48} for rate in np.geomspace(6e-5, 1.2e-4, 99)
    )
    trials = [trial(n, next(parameters), 0.05 + n / 1000, metrics=GOOD) for n in range(n_good)]
    trials += [trial(n + 30, next(parameters), 0.3, metrics=GOOD | {"brightness_mean": 0.1}) for n in range(n_dark)]
    trials += [failed(n + 60, next(parameters), Cause.GRADIENT_EXPLOSION) for n in range(n_exploded)]
    space = {"name": "x", "parameters": {"learning_rate": {"type": "loguniform", "low": 6e-5, "high": 1.2e-4}}}
    spec = {"trainer": "diffusion_lora", "space": space}
    return StudyRecord("s", "minimize", tuple(trials), spec=spec, calibration={"bands": BANDS, **calibration})


def criteria(record: StudyRecord) -> dict[str, analysis.Criterion]:
    table = analysis.success_table(record)
    assert table is not None
    return {one.name: one for one in table.criteria}


def test_a_study_that_meets_every_criterion() -> None:
    record = lora(18, 2, 0)
    assert all(one.holds for one in criteria(record).values()), criteria(record)
    assert criteria(record)["usable"].number == 0.9
    assert criteria(record)["excellent"].number == 18


def test_explosions_count_against_stability() -> None:
    told = criteria(lora(6, 8, 6))
    assert told["catastrophic failures"].number == pytest.approx(0.3)
    assert not told["catastrophic failures"].holds
    assert not told["stable"].holds
    assert told["usable"].number == pytest.approx(0.3)
    assert told["gradient explosions"].number == 6
    assert not told["gradient explosions"].holds


def test_own_targets_count_the_best_tenth() -> None:
    told = criteria(lora(20, 0, 0, targets_from={"brightness": "reference"}))
    assert told["excellent"].number == 2


def test_what_is_on_no_known_scale_is_not_judged() -> None:
    told = criteria(lora(18, 2, 0, calibrated=False))
    assert told["CLIP on the best"].holds is None
    assert "uncalibrated" in told["CLIP on the best"].note


def test_the_distributions_have_the_bins_that_were_expected() -> None:
    table = analysis.success_table(lora(20, 0, 0))
    assert table is not None
    by_name = {one.name: one.bins for one in table.distributions}
    assert [(one.label, one.count, one.expected) for one in by_name["alpha ratio"]] == [
        ("up to 0.40", 0, 6.0),
        ("0.45 to 0.70", 0, 8.0),
        ("0.75 and more", 20, 6.0),
    ]
    assert sum(one.count for one in by_name["learning rate"]) == 20
    assert [one.expected for one in by_name["learning rate"]] == [7.0, 8.0, 5.0]


def test_only_image_loras_have_a_success_table() -> None:
    assert analysis.success_table(scored(30, bowl)) is None


# --- the commands ----------------------------------------------------------------------------------------------------


def test_findings_are_printed(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    main_of(["findings", str(example.folder)])
    printed = capsys.readouterr().out
    for words in ("not verified", "criteria hold", "alpha ratio (trials):", "ended in nan loss"):
        assert words in " ".join(printed.split())


def test_findings_as_json_are_the_same(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    main_of(["findings", str(example.folder), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [one["key"] for one in told["findings"]] == [one.key for one in analysis.findings(example.record)]
    assert {one["name"] for one in told["success"]["criteria"]} == set(criteria(example.record))


def test_learning_rates_tried_by_score(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    main_of(["top", str(example.folder), "--by", "learning_rate", "-n", "99"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["learning_rate", "score", "trial"]
    scores = [float(words[1]) for words in lines[1:] if words[1] != "–"]
    assert scores == sorted(scores)
    assert len(scores) == len(example.record.ranked())
    assert [words[3] for words in lines[-2:]] == ["failed:", "failed:"]


def test_a_hyperparameter_that_nobody_has(example: Example) -> None:
    with pytest.raises(InputError, match="hyperparameter 'learnign_rate' is unknown; did you mean 'learning_rate'"):
        analysis.tried(example.record, "learnign_rate")


def main_of(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code


def test_a_folder_without_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["findings", str(tmp_path)])
    assert end.value.code == 2
    assert "no study.db here" in capsys.readouterr().err
