"use strict";
// What the page does: its addresses (`#trial-12`, or a part of the overview), its colours, printing.
const left = { scrolled: 0, rows: 0, hash: "" }; // where the overview was left

function route() {
  const found = /^#trial-(\d+)$/.exec(location.hash), overview = document.getElementById("overview"), page = document.getElementById("trial");
  if (location.hash === "#content") return;
  const wasAway = overview.hidden;
  if (found && !wasAway) leave();
  overview.hidden = Boolean(found);
  page.hidden = !found;
  if (found) {
    const heading = showTrial(Number(found[1]));
    document.title = heading.textContent + " · " + document.body.dataset.name;
    scrollTo({ top: 0, behavior: "instant" });
    heading.focus({ preventScroll: true });
  } else {
    page.replaceChildren();
    document.title = document.body.dataset.name + " · tune-lora";
    if (wasAway) comeBack();
    left.hash = location.hash;
  }
}

function leave() {
  Object.assign(left, { scrolled: scrollY, rows: document.getElementById("rows")?.scrollTop ?? 0 });
}

function comeBack() {
  const rows = document.getElementById("rows");
  if (rows) {
    rows.scrollTop = left.rows; // a scroller forgets its place while it is hidden
    showRows(true);
  }
  const named = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (named && location.hash !== left.hash) named.scrollIntoView({ behavior: "instant" });
  else scrollTo({ top: left.scrolled, behavior: "instant" });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

function startTheme() {
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("tune-lora-theme", theme);
    } catch (blocked) {
      button.title = "this browser does not keep the choice";
    }
    nameTheme();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { nameTheme(); redraw(); });
  nameTheme();
}

startTheme();
chooseObjective();
startTable();
watchFigures();
addEventListener("hashchange", route);
addEventListener("beforeprint", () => { drawAll(); if (STUDY.trials.length) showRows(true, true); });
addEventListener("afterprint", () => { if (STUDY.trials.length) showRows(true); });
if (location.hash.startsWith("#trial-")) route();
document.documentElement.dataset.ready = "yes";
