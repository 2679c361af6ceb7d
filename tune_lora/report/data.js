"use strict";
// The study, and what all parts of the page share. Text reaches the page by `textContent` only.
const STUDY = JSON.parse(document.getElementById("data").textContent);
const TRIALS = new Map(STUDY.trials.map((trial) => [trial.n, trial]));
const PLACES = new Map(STUDY.ranked.map((number, place) => [number, place + 1]));
const view = { objective: 0 };

/** One entry of a plain object; undefined where it has none of its own (a name may be `constructor`). */
function own(object, name) {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** A number in four digits, `6e-5` rather than `0.00006`; a dash for none. */
function short(value) {
  if (typeof value === "boolean" || typeof value === "string") return String(value);
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e6 ? value.toPrecision(4) : value.toExponential(3);
  const [mantissa, exponent] = text.split("e");
  return Number(mantissa) + (exponent ? "e" + Number(exponent) : "");
}

/** `45 s`, `12 min`, `3 h 05 min`. */
function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return Math.round(seconds) + " s";
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? minutes + " min" : Math.floor(minutes / 60) + " h " + String(minutes % 60).padStart(2, "0") + " min";
}

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A value for the objective that is shown. */
function worth(trial) {
  const value = trial.values[view.objective];
  return value === undefined ? null : value;
}

/** Whether `a` is a better value than `b`. */
function better(a, b) {
  return STUDY.minimize[view.objective] ? a < b : a > b;
}

function completed() {
  return STUDY.trials.filter((trial) => trial.state === "complete" && worth(trial) !== null);
}

function scoreName() {
  return STUDY.names[view.objective];
}

const palette = new Map(); // emptied when colours change: to ask the browser makes it lay out the page

/** A colour of the page, as it is now. */
function colour(name) {
  if (!palette.has(name)) palette.set(name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim());
  return palette.get(name);
}

function options(select, values, texts = values) {
  select.replaceChildren(...values.map((value, at) => make("option", { value }, texts[at])));
}
