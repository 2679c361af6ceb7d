"use strict";
// The table of trials: any column sorts, a line of words and comparisons filters, and only rows in view are in the page.

const ROOMY = 60; // rows that are all there; more scroll in a window
const SPARE = 12; // rows kept above and below those in view
const table = { rows: [], columns: [], by: "n", down: false, metrics: false, from: -1, to: -1 };

function column(key, title, value, more = {}) {
  return { key, title, value, text: (trial) => short(value(trial)), numeric: true, width: 104, ...more };
}

/** Why a trial ended; that it was pruned, its state says. */
function why(trial) {
  return [trial.cause === trial.state ? "" : trial.cause, trial.message].filter(Boolean).join(": ");
}

/** Pixels in which a column's name stands on one line, unless it is a long one. */
function roomFor(name) {
  return Math.round(Math.min(260, Math.max(96, 34 + 8.2 * name.length)));
}

function columns() {
  const words = (key, title, value, width) => column(key, title, value, { text: (trial) => value(trial) || "", numeric: false, width });
  const found = [column("n", "trial", (trial) => trial.n, { width: 76 }), words("state", "state", (trial) => trial.state, 92)];
  STUDY.names.forEach((name, at) => found.push(column("value:" + name, name, (trial) => trial.values[at] ?? null, { down: !STUDY.minimize[at] })));
  if (STUDY.trials.some((trial) => trial.verified)) found.push(words("verified", "verified", (trial) => trial.verified, 130));
  if (STUDY.trials.some((trial) => trial.liked)) found.push(column("liked", "liked", (trial) => trial.liked?.score ?? null, { text: (trial) => trial.liked?.text ?? "–" }));
  if (STUDY.baseline !== null) found.push(column("gain", "vs baseline", (trial) => trial.gain, { text: (trial) => (trial.gain === null ? "–" : (trial.gain > 0 ? "+" : "") + trial.gain.toFixed(1) + "%") }));
  found.push(column("budget", "budget", (trial) => trial.budget, { width: 84 }), column("time", STUDY.time === "device time" ? "device time" : "time", (trial) => trial.seconds, { text: (trial) => duration(trial.seconds), width: 92 }));
  if (STUDY.trials.some((trial) => trial.cause || trial.message)) found.push(words("cause", "cause", why, 200));
  const shown = STUDY.params.filter((name) => !Object.hasOwn(STUDY.shared, name));
  for (const name of shown) found.push(column("param:" + name, name.split(".").at(-1), (trial) => own(trial.params, name) ?? null, { text: (trial) => own(trial.settings, name) ?? short(own(trial.params, name)), width: roomFor(name.split(".").at(-1)) }));
  if (table.metrics) for (const name of STUDY.metrics) found.push(column("metric:" + name, name, (trial) => own(trial.metrics, name) ?? null, { width: roomFor(name) }));
  if (STUDY.trials.some((trial) => trial.origin !== "sampler")) found.push(words("origin", "from", (trial) => trial.origin, 170));
  return found;
}

/** Orders values of one column: numbers before words, nothing last whichever way. */
function compare(a, b, sign) {
  const none = (value) => value === null || value === undefined || value === "";
  if (none(a) || none(b)) return none(a) - none(b);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  if (typeof a === "number" || typeof b === "number") return typeof a === "number" ? -1 : 1;
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** One word of the filter: `learning_rate>1e-4` compares, anything else is looked for in a trial's words. */
function term(word) {
  const found = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/.exec(word);
  const named = found && table.columns.find((one) => [one.title, one.key, one.key.split(":").slice(1).join(":")].some((name) => name.toLowerCase() === found[1]));
  if (!named) return (trial) => trial.words.includes(word);
  const [, , sign, wanted] = found, limit = Number(wanted);
  const holds = { "<": (a) => a < limit, ">": (a) => a > limit, "<=": (a) => a <= limit, ">=": (a) => a >= limit };
  if (sign === "=") return (trial) => String(named.value(trial)).toLowerCase() === wanted || named.value(trial) === limit;
  return (trial) => typeof named.value(trial) === "number" && holds[sign](named.value(trial));
}

function wordsOf(trial) {
  const settings = Object.entries(trial.settings).map(([name, text]) => name + " " + text);
  return ["trial " + trial.n, trial.state, trial.cause, trial.message, trial.origin, ...settings].join(" ").toLowerCase();
}

function choose() {
  const [find, state, cause] = ["find", "state", "cause"].map((id) => document.getElementById(id).value);
  const terms = find.toLowerCase().split(/\s+/).filter(Boolean).map(term);
  const kept = STUDY.trials.filter((trial) => (!state || trial.state === state) && (!cause || trial.cause === cause) && terms.every((holds) => holds(trial)));
  const { value } = table.columns.find((one) => one.key === table.by) || table.columns[0];
  const sign = table.down ? -1 : 1;
  table.rows = kept.sort((a, b) => compare(value(a), value(b), sign) || a.n - b.n);
  document.getElementById("count").textContent = kept.length + " of " + STUDY.trials.length + " trials";
  showRows(true);
}

function sortBy(one) {
  table.down = table.by === one.key ? !table.down : Boolean(one.down);
  table.by = one.key;
  showSort();
  document.getElementById("rows").scrollTop = 0;
  choose();
}

function showSort() {
  const heads = document.querySelectorAll("#rows th");
  heads.forEach((head, at) => head.setAttribute("aria-sort", table.columns[at].key !== table.by ? "none" : table.down ? "descending" : "ascending"));
}

function showHead() {
  table.columns = columns();
  const heads = table.columns.map((one) => {
    const button = make("button", { type: "button", title: "sort by " + one.title }, one.title);
    button.addEventListener("click", () => sortBy(one));
    return make("th", { scope: "col", class: one.numeric ? "n" : "", style: "width:" + one.width + "px" }, button);
  });
  document.querySelector("#rows thead tr").replaceChildren(...heads);
  const shown = document.querySelector("#rows table");
  shown.setAttribute("aria-colcount", heads.length);
  shown.style.setProperty("--wide", table.columns.reduce((sum, one) => sum + one.width, 0) + "px"); // only then columns are as wide as they say
  showSort();
}

function rowOf(trial, at) {
  const cells = table.columns.map((one) => {
    const text = one.text(trial);
    const inside = one.key === "n" ? make("a", { href: "#trial-" + trial.n }, String(trial.n)) : text;
    const tone = one.key === "state" ? trial.state : one.key === "cause" ? trial.state : "";
    return make("td", { class: ((one.numeric && typeof one.value(trial) !== "string" ? "n " : "") + tone).trim(), title: text.length > 12 ? text : null }, inside);
  });
  return make("tr", { class: trial.n === STUDY.winner ? "best" : null, "aria-rowindex": at + 2 }, ...cells);
}

function gap(height) {
  const cell = make("td", { colspan: table.columns.length, style: "height:" + height + "px" });
  return make("tr", { class: "gap", "aria-hidden": "true" }, cell);
}

/** Puts the rows in view into the page; all of them where there are few, or `everything`. */
function showRows(anew, everything = false) {
  const place = document.getElementById("rows"), body = place.querySelector("tbody");
  const height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 33;
  const whole = everything || table.rows.length <= ROOMY;
  const first = whole ? 0 : Math.max(0, Math.floor(place.scrollTop / height) - SPARE);
  const last = whole ? table.rows.length : Math.min(table.rows.length, first + Math.ceil((place.clientHeight || innerHeight) / height) + 2 * SPARE);
  if (!anew && first === table.from && last === table.to) return;
  Object.assign(table, { from: first, to: last });
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const rows = table.rows.slice(first, last).map((trial, at) => rowOf(trial, first + at));
  body.replaceChildren(...(first ? [gap(first * height)] : []), ...rows, ...(last < table.rows.length ? [gap((table.rows.length - last) * height)] : []));
  place.querySelector("table").setAttribute("aria-rowcount", table.rows.length + 1);
  if (focused) body.querySelector('a[href="' + focused + '"]')?.focus({ preventScroll: true });
}

function startTable() {
  if (!STUDY.trials.length) return;
  STUDY.trials.forEach((trial) => (trial.words = wordsOf(trial)));
  const states = [...new Set(STUDY.trials.map((trial) => trial.state))], causes = [...new Set(STUDY.trials.map((trial) => trial.cause).filter(Boolean))];
  options(document.getElementById("state"), ["", ...states], ["any state", ...states]);
  options(document.getElementById("cause"), ["", ...causes], ["any cause", ...causes]);
  document.getElementById("cause").parentElement.hidden = !causes.length;
  document.getElementById("measured").parentElement.hidden = !STUDY.metrics.length;
  for (const id of ["find", "state", "cause"]) document.getElementById(id).addEventListener("input", choose);
  document.getElementById("measured").addEventListener("change", (event) => {
    table.metrics = event.target.checked;
    showHead();
    choose();
  });
  document.getElementById("rows").addEventListener("scroll", () => requestAnimationFrame(() => showRows(false)), { passive: true });
  showHead();
  choose();
}
