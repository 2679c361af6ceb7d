"use strict";
// A trial's page: what it is worth, why it ended, its pictures by rung, its curves, its configuration beside the winner's.

function picture(one, trial) {
  const alt = (trial ? "trial " + trial.n + ": " : "") + one.label;
  const image = one.uri ? make("img", { src: one.uri, alt, loading: "lazy", decoding: "async" }) : make("div", { class: "none" }, "no image");
  return make("figure", {}, image, make("figcaption", {}, one.label));
}

function strip(title, pictures, trial) {
  return make("section", {}, make("h3", {}, title), make("div", { class: "strip" }, ...pictures.map((one) => picture(one, trial))));
}

function pictures(trial) {
  const budgets = [...new Set(trial.images.map((one) => one.budget))].sort((a, b) => b - a);
  if (!budgets.length) return null;
  const rungs = budgets.map((budget) => strip("After a budget of " + budget, trial.images.filter((one) => one.budget === budget), trial));
  const base = STUDY.baseImages.length ? [strip("The untrained base", STUDY.baseImages, null)] : [];
  return make("div", {}, make("h2", {}, "Pictures"), ...rungs.slice(0, 1), ...base, ...rungs.slice(1));
}

function headRow(...titles) {
  return make("tr", {}, ...titles.map((title, at) => make("th", { scope: "col", class: at ? "n" : "" }, title)));
}

function valueTable(names, title, ours, theirs, note, base) {
  const winner = TRIALS.get(STUDY.winner);
  const rows = names.map((name) => {
    const mine = ours(name), other = winner ? theirs(name) : undefined;
    const differs = winner && mine !== other;
    return make("tr", {}, make("td", {}, name, note ? note(name) : null), make("td", { class: differs ? "n changed" : "n" }, mine ?? "–"), winner ? make("td", { class: "n" }, other ?? "–") : null, base ? make("td", { class: "n" }, base(name) ?? "–") : null);
  });
  const head = headRow(title, "this trial", ...(winner ? ["winner, trial " + winner.n] : []), ...(base ? [STUDY.untrained.name] : []));
  return make("div", { class: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function configuration(trial) {
  const winner = TRIALS.get(STUDY.winner), value = (one) => (name) => own(one.settings, name) ?? own(STUDY.shared, name);
  const names = [...new Set([...Object.keys(trial.settings), ...Object.keys(STUDY.shared)])];
  const sampled = new Set(STUDY.params);
  names.sort((a, b) => sampled.has(b) - sampled.has(a));
  const note = (name) => (sampled.has(name) ? null : make("span", { class: "dim" }, " (set by the space)"));
  return make("section", {}, make("h2", {}, "Configuration"), valueTable(names, "hyperparameter", value(trial), winner ? value(winner) : () => undefined, note));
}

function measured(trial) {
  const winner = TRIALS.get(STUDY.winner), names = Object.keys(trial.metrics);
  if (!names.length) return null;
  const among = (values) => (name) => (own(values, name) === undefined ? undefined : short(values[name]));
  const base = Object.keys(STUDY.untrained.values).length ? among(STUDY.untrained.values) : null;
  return make("section", {}, make("h2", {}, "Measured at its end"), valueTable(names, "measure", among(trial.metrics), winner ? among(winner.metrics) : () => undefined, null, base));
}

function facts(trial) {
  const rows = [["State", trial.state + (trial.cause && trial.cause !== trial.state ? ": " + trial.cause : "")], ...STUDY.names.map((name, at) => [name, short(trial.values[at])])];
  if (PLACES.has(trial.n)) rows.push(["Place", PLACES.get(trial.n) + " of " + PLACES.size + " completed trials"]);
  if (trial.verified) rows.push(["Measured again", trial.verified]);
  if (trial.liked) rows.push(["Liked by people", trial.liked.text]);
  if (trial.gain !== null && trial.n !== STUDY.baseline) rows.push(["Against the baseline", (trial.gain > 0 ? "+" : "") + trial.gain.toFixed(1) + "%"]);
  rows.push(["Budget", String(trial.budget)], [STUDY.time[0].toUpperCase() + STUDY.time.slice(1), duration(trial.seconds) + (trial.share ? ", " + trial.share : "")], ["From", trial.origin]);
  return make("div", { class: "card" }, make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
}

function neighbours(trial) {
  const link = (number, text) => (number === undefined ? null : make("a", { href: "#trial-" + number }, text));
  const numbers = STUDY.trials.map((one) => one.n), at = numbers.indexOf(trial.n), place = STUDY.ranked.indexOf(trial.n);
  const better = place > 0 ? STUDY.ranked[place - 1] : undefined, worse = place >= 0 ? STUDY.ranked[place + 1] : undefined;
  return make("nav", { class: "row", "aria-label": "other trials" }, make("a", { href: "#trials" }, "← all trials"), link(numbers[at - 1], "trial before"), link(numbers[at + 1], "trial after"), link(better, "next better"), link(worse, "next worse"), trial.n === STUDY.winner ? null : link(STUDY.winner ?? undefined, "the winner"));
}

function curveBox(trial) {
  const names = Object.keys(trial.history.y);
  const select = make("select", { id: "metric" });
  options(select, [...(trial.curve.x.length ? ["score:"] : []), ...names.map((name) => "metric:" + name)], [...(trial.curve.x.length ? ["what the schedule saw"] : []), ...names]);
  if (!select.options.length) return null;
  select.addEventListener("change", drawTrialCurve);
  return make("section", {}, make("h2", {}, "Learning curve"), make("div", { class: "plot whole" }, make("div", { class: "row controls" }, make("label", {}, "measure ", select)), make("div", { class: "draw", id: "curve", "data-trial": trial.n })));
}

function drawTrialCurve() {
  const place = document.getElementById("curve"), select = document.getElementById("metric");
  if (!place) return;
  const name = select.value.slice(select.value.indexOf(":") + 1), scores = select.value === "score:";
  const line = (trial, tone, title, width) => {
    const curve = scores ? trial.curve : { x: trial.history.x, y: own(trial.history.y, name) || [] };
    return { type: "scatter", mode: "lines+markers", connectgaps: true, x: curve.x, y: curve.y, name: title, line: { color: colour(tone), width }, hoverinfo: "x+y" };
  };
  const trial = TRIALS.get(Number(place.dataset.trial)), winner = TRIALS.get(STUDY.winner);
  const data = winner && winner !== trial ? [line(winner, "dim", "winner, trial " + winner.n, 1.5)] : [];
  data.push(line(trial, "accent", "trial " + trial.n, 2.5));
  plot(place, { data, layout: { xaxis: { title: "budget" }, yaxis: { title: brief(scores ? STUDY.names.join(", ") : name) } } });
}

function showTrial(number) {
  const trial = TRIALS.get(number), page = document.getElementById("trial");
  const heading = make("h1", { tabindex: "-1" }, "Trial " + number);
  if (!trial) {
    page.replaceChildren(heading, make("p", {}, "This study has no such trial."), make("a", { href: "#trials" }, "← all trials"));
    return heading;
  }
  const message = trial.message ? make("pre", { class: "message " + trial.state }, trial.message) : null;
  const badge = trial.n === STUDY.winner ? make("p", { class: "lead" }, "The recommended trial.") : null;
  page.replaceChildren(...[neighbours(trial), heading, badge, facts(trial), message, pictures(trial), curveBox(trial), make("div", { class: "columns" }, configuration(trial), measured(trial) ?? "")].filter(Boolean));
  drawTrialCurve();
  return heading;
}
