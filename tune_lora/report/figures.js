"use strict";
// The figures: each a function from the study to traces and axes, drawn when it comes into view.

const FEW = 8; // shades between worst and best: one path each is drawn fast, a path a trial is not

/** Text that plotly shows as it is: it would read tags and entities. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Text of an axis, no longer than fits. */
function brief(text, most = 28) {
  const letters = Array.from(String(text));
  return plain(letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text);
}

function said(trial) {
  return "trial " + trial.n + ", " + plain(scoreName()) + " " + short(worth(trial));
}

function dots(trials, x, more = {}) {
  return {
    type: "scatter", mode: "markers", x: trials.map(x), y: trials.map(worth), text: trials.map(said), hoverinfo: "text",
    customdata: trials.map((trial) => trial.n), marker: { color: colour("good"), size: 6, opacity: 0.65 }, name: "completed", ...more,
  };
}

/** The best so far over completed trials in their order. */
function incumbents(trials, x) {
  const found = { x: [], y: [] };
  for (const trial of trials) {
    if (found.y.length === 0 || better(worth(trial), found.y.at(-1))) {
      found.x.push(x(trial));
      found.y.push(worth(trial));
    }
  }
  if (trials.length) {
    found.x.push(x(trials.at(-1)));
    found.y.push(found.y.at(-1));
  }
  return { ...found, type: "scatter", mode: "lines", line: { shape: "hv", color: colour("accent"), width: 2 }, name: "best so far", hoverinfo: "y" };
}

function winnerMark(x) {
  const trial = TRIALS.get(STUDY.winner);
  if (!trial || worth(trial) === null) return [];
  return [dots([trial], x, { name: "winner", marker: { color: colour("accent"), size: 15, symbol: "star", line: { color: colour("card"), width: 1 } } })];
}

function untrainedLine() {
  const value = own(STUDY.untrained.values, scoreName());
  if (value === undefined || value === null) return [];
  const last = STUDY.trials.length - 1;
  return [{ type: "scatter", mode: "lines", x: [0, last], y: [value, value], line: { dash: "dot", color: colour("dim") }, name: plain(STUDY.untrained.name), hoverinfo: "name+y" }];
}

function history() {
  const done = completed();
  if (!done.length) return "No trial has completed.";
  const at = (trial) => trial.n;
  return { data: [dots(done, at), incumbents(done, at), ...untrainedLine(), ...winnerMark(at)], layout: { xaxis: { title: "trial" }, yaxis: { title: brief(scoreName()) } } };
}

/** Many curves as one path: nothing between them. */
function joined(trials, curve, more) {
  const path = { x: [], y: [], text: [], customdata: [] };
  for (const trial of trials) {
    const { x, y } = curve(trial);
    for (let at = 0; at < x.length; at++) {
      path.x.push(x[at]);
      path.y.push(y[at]);
      path.text.push("trial " + trial.n + " at " + x[at] + ": " + short(y[at]));
      path.customdata.push(trial.n);
    }
    path.x.push(null);
    path.y.push(null);
    path.text.push("");
    path.customdata.push(null);
  }
  return { type: "scatter", mode: "lines", hoverinfo: "text", connectgaps: false, ...path, ...more };
}

function scoreCurve(trial) {
  if (STUDY.names.length === 1) return trial.curve;
  return { x: trial.history.x, y: own(trial.history.y, scoreName()) || trial.history.x.map(() => null) };
}

function curves() {
  const known = STUDY.trials.filter((trial) => scoreCurve(trial).y.some((value) => value !== null));
  if (!known.length) return "No trial reported a score along the way.";
  const single = known.every((trial) => scoreCurve(trial).x.length < 2);
  const mode = single ? "markers" : "lines";
  const part = (state, tone, opacity) => joined(known.filter((trial) => trial.state === state && trial.n !== STUDY.winner), scoreCurve, {
    mode, name: state, opacity, line: { color: colour(tone), width: 1 }, marker: { color: colour(tone), size: 4 },
  });
  const winner = known.filter((trial) => trial.n === STUDY.winner);
  const data = [part("pruned", "dim", 0.35), part("failed", "bad", 0.6), part("complete", "good", 0.5)].filter((one) => one.x.length);
  if (winner.length) data.push(joined(winner, scoreCurve, { mode: "lines+markers", name: "winner", line: { color: colour("accent"), width: 3 } }));
  return { data, layout: { xaxis: { title: "budget" }, yaxis: { title: brief(scoreName()) } } };
}

/** Where each trial stands on a hyperparameter's axis, 0 to 1, and the words at its ends. */
function axis(name) {
  const values = STUDY.trials.map((trial) => own(trial.params, name)).filter((value) => value !== undefined && value !== null);
  const numeric = values.every((value) => typeof value === "number");
  if (!numeric) {
    const choices = [...new Set(values.map(String))];
    return { place: (value) => (choices.length < 2 ? 0.5 : choices.indexOf(String(value)) / (choices.length - 1)), ends: choices.length < 5 ? choices : [choices[0], choices.at(-1)] };
  }
  const log = STUDY.logs.includes(name) && Math.min(...values) > 0;
  const scaled = log ? Math.log : (value) => value;
  const low = Math.min(...values), high = Math.max(...values), width = scaled(high) - scaled(low);
  return { place: (value) => (width ? (scaled(value) - scaled(low)) / width : 0.5), ends: [short(low), short(high)] };
}

/** What is told apart from chance first: shares alone may pass it by where pruning left only its good values. */
function byEvidence() {
  return [...STUDY.importances].sort((a, b) => b.toldApart - a.toldApart || b.share - a.share);
}

/** Hyperparameters that varied, the most important first. */
function varied() {
  const rank = new Map(byEvidence().map((one, place) => [one.name, place]));
  const names = STUDY.params.filter((name) => new Set(STUDY.trials.map((trial) => String(own(trial.params, name)))).size > 1);
  return names.sort((a, b) => (rank.get(a) ?? 99) - (rank.get(b) ?? 99));
}

/** Shades from the worst (dim) to the best: completed trials cut into `FEW` parts of equal number. */
function shades(trials) {
  const order = [...trials].sort((a, b) => (better(worth(a), worth(b)) ? 1 : -1));
  const size = Math.ceil(order.length / FEW) || 1;
  return Array.from({ length: FEW }, (_, part) => order.slice(part * size, (part + 1) * size)).filter((part) => part.length);
}

function parallel() {
  const names = varied().slice(0, 10), done = completed();
  if (names.length < 2 || done.length < 2) return "Fewer than two hyperparameters varied, or fewer than two trials completed.";
  const axes = names.map(axis);
  const curve = (trial) => ({ x: names.map((_, at) => at), y: names.map((name, at) => (own(trial.params, name) === undefined ? null : axes[at].place(trial.params[name]))) });
  const parts = shades(done.filter((trial) => trial.n !== STUDY.winner));
  const data = parts.map((part, at) => joined(part, curve, {
    text: undefined, hoverinfo: "skip", showlegend: false, opacity: 0.25 + (0.5 * at) / parts.length, line: { width: 1, color: colour(at > parts.length - 3 ? "good" : "dim") },
  }));
  const winner = done.filter((trial) => trial.n === STUDY.winner);
  data.push(joined(winner, curve, { mode: "lines+markers", name: "winner", text: undefined, hoverinfo: "name", line: { width: 3, color: colour("accent") } }));
  const notes = axes.flatMap(({ place, ends }, at) => ends.map((text, end) => ({
    x: at, y: ends.length < 2 ? 0.5 : end / (ends.length - 1), text: brief(text, 14), showarrow: false, xanchor: "left", xshift: 4, font: { size: 10, color: colour("ink") }, bgcolor: colour("card"), opacity: 0.85,
  })));
  const ticks = { tickvals: names.map((_, at) => at), ticktext: names.map((name) => brief(name.split(".").at(-1), 20)), range: [-0.15, names.length - 0.4], tickangle: names.length > 5 ? 25 : 0, ticklabeloverflow: "allow" };
  return { data, layout: { margin: { l: 24, r: 80, t: 36, b: 60 }, xaxis: ticks, yaxis: { visible: false, range: [-0.06, 1.06] }, annotations: notes, showlegend: false } };
}

function importances() {
  const rows = byEvidence().slice(0, 12).reverse();
  if (!rows.length) return "Shares are told from 10 completed trials with different results on.";
  const y = rows.map((one) => brief(one.name.split(".").at(-1) + (one.toldApart ? " ✓" : "")));
  const bars = (name, x, tone, more) => ({ type: "bar", orientation: "h", name, x, y, marker: { color: colour(tone), opacity: tone === "dim" ? 0.5 : 1 }, hoverinfo: "x+name", ...more });
  const whiskers = { type: "data", symmetric: false, array: rows.map((one) => one.high - one.share), arrayminus: rows.map((one) => one.share - one.low), color: colour("dim"), thickness: 1.2 };
  return {
    data: [bars("what sets the best apart (PED-ANOVA)", rows.map((one) => one.amongBest), "dim"), bars("share of the variance (fANOVA)", rows.map((one) => one.share), "good", { error_x: whiskers })],
    layout: { xaxis: { tickformat: ".0%", rangemode: "tozero" }, yaxis: { automargin: true }, barmode: "group" },
  };
}

function slice(figure) {
  const select = figure.querySelector("select"), names = varied(), done = completed();
  if (!names.length || !done.length) return "No hyperparameter varied, or no trial completed.";
  if (!select.options.length) options(select, names);
  const name = select.value, known = done.filter((trial) => own(trial.params, name) !== undefined && own(trial.params, name) !== null);
  const numeric = known.every((trial) => typeof trial.params[name] === "number");
  const at = (trial) => (numeric ? trial.params[name] : plain(trial.params[name]));
  const shape = { color: known.map((trial) => trial.n), colorscale: [[0, colour("line")], [1, colour("good")]], size: 7, line: { width: 0.5, color: colour("dim") } };
  return { data: [dots(known, at, { marker: shape, name: "completed, later ones darker" }), ...winnerMark(at)], layout: { xaxis: { title: brief(name, 40), type: numeric ? (STUDY.logs.includes(name) ? "log" : "linear") : "category" }, yaxis: { title: brief(scoreName()) } } };
}

function survival() {
  const ended = STUDY.trials.filter((trial) => trial.budget > 0);
  if (!ended.length) return "No trial reported.";
  const budgets = [...new Set(ended.flatMap((trial) => [...trial.history.x, trial.budget]))].sort((a, b) => a - b);
  const part = (state, tone) => {
    const mine = ended.filter((trial) => trial.state === state);
    return { type: "bar", name: state, x: budgets, y: budgets.map((at) => mine.filter((trial) => trial.budget >= at).length), marker: { color: colour(tone) }, hoverinfo: "x+y+name", skip: !mine.length };
  };
  const data = [part("complete", "good"), part("pruned", "dim"), part("failed", "bad"), part("running", "accent")].filter((one) => !one.skip);
  data.forEach((one) => delete one.skip);
  return { data, layout: { barmode: "stack", xaxis: { title: "budget" }, yaxis: { title: "trials that came so far", rangemode: "tozero" }, bargap: 0.15 } };
}

function failures() {
  const counts = new Map();
  for (const trial of STUDY.trials) if (trial.state === "failed") counts.set(trial.cause || "unknown", (counts.get(trial.cause || "unknown") || 0) + 1);
  if (!counts.size) return "No trial failed.";
  const rows = [...counts].sort((a, b) => a[1] - b[1]);
  return { data: [{ type: "bar", orientation: "h", y: rows.map((one) => brief(one[0])), x: rows.map((one) => one[1]), marker: { color: colour("bad") }, hoverinfo: "x+y", name: "failed" }], layout: { xaxis: { title: "trials", rangemode: "tozero" }, yaxis: { automargin: true }, showlegend: false } };
}

function cost() {
  const hours = new Map();
  let sum = 0;
  for (const trial of STUDY.trials) hours.set(trial.n, (sum += (trial.seconds || 0) / 3600));
  const done = completed(), at = (trial) => hours.get(trial.n);
  if (!done.length || !sum) return "No trial has completed.";
  return { data: [dots(done, at), incumbents(done, at), ...winnerMark(at)], layout: { xaxis: { title: "hours of " + STUDY.time + ", all trials before included" }, yaxis: { title: brief(scoreName()) } } };
}

function front() {
  const done = completed().filter((trial) => trial.values.length > 1 && trial.values[1] !== null);
  if (!done.length) return "No trial has completed.";
  const leading = new Set(STUDY.front), x = (trial) => trial.values[0];
  const set = (trials, name, tone, size) => ({ ...dots(trials, x), name, y: trials.map((trial) => trial.values[1]), text: trials.map((trial) => "trial " + trial.n + ": " + trial.values.map(short).join(", ")), marker: { color: colour(tone), size } });
  const data = [set(done.filter((trial) => !leading.has(trial.n)), "beaten", "dim", 6), set(done.filter((trial) => leading.has(trial.n)), "front", "accent", 10)];
  return { data, layout: { xaxis: { title: brief(STUDY.names[0]) }, yaxis: { title: brief(STUDY.names[1]) } } };
}
