"use strict";
// Drawing: when a figure comes into view, when colours change, and what a click on a point does.

const FIGURES = { history, curves, parallel, importances, slice, survival, failures, cost, front };
const drawn = new Set(), due = [];
const TOUCH = matchMedia("(pointer: coarse)").matches; // a finger on a figure scrolls the page; buttons zoom

function titled(axis = {}) {
  const common = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
  const title = typeof axis.title === "string" ? { title: { text: axis.title, standoff: 8 } } : {};
  return { ...common, ...axis, ...title };
}

function layoutOf(layout) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink"), size: 12 },
    margin: { l: 52, r: 14, t: 56, b: 44 }, hovermode: "closest", dragmode: TOUCH ? false : "zoom", showlegend: true,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("dim"), activecolor: colour("accent") }, ...layout, xaxis: titled(layout.xaxis), yaxis: titled(layout.yaxis),
  };
}

// Named one by one: buttons that send data anywhere are not among them.
const BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: true, modeBarButtons: [BUTTONS], scrollZoom: false, plotlyServerURL: "" };

/** Draws into an element; of a sentence in place of a figure that sentence. */
function plot(place, found) {
  const was = place.classList.toggle("empty", typeof found === "string");
  if (was) {
    if (place.dataset.clicks) Plotly.purge(place);
    delete place.dataset.clicks;
    place.textContent = found;
    return;
  }
  if (!place.dataset.clicks) place.replaceChildren();
  Plotly.react(place, found.data, layoutOf(found.layout), CONFIG);
  if (!place.dataset.clicks) {
    place.dataset.clicks = "yes";
    place.on("plotly_click", (event) => {
      const number = event.points[0].customdata;
      if (Number.isInteger(number) && !event.event.altKey) location.hash = "trial-" + number;
    });
  }
}

function drawFigure(figure) {
  drawn.add(figure);
  plot(figure.querySelector(".draw"), FIGURES[figure.dataset.plot](figure));
}

function redraw() {
  palette.clear();
  for (const figure of [...drawn]) {
    if (figure.offsetParent !== null) drawFigure(figure);
    else { // drawn while hidden it would have no size: again when it comes into view
      drawn.delete(figure);
      seen.observe(figure);
    }
  }
  if (!document.getElementById("trial").hidden) drawTrialCurve();
}

function drawAll() {
  for (const figure of document.querySelectorAll(".plot[data-plot]")) {
    if (figure.offsetParent !== null && !drawn.has(figure)) drawFigure(figure);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    due.push(target);
  }
  drawNext();
}, { rootMargin: "250px" });

/** One figure a frame, so that the first is seen before the next is drawn. */
function drawNext() {
  const figure = due.shift();
  if (!figure) return;
  if (!drawn.has(figure)) drawFigure(figure);
  requestAnimationFrame(() => setTimeout(drawNext));
}

function watchFigures() {
  for (const figure of document.querySelectorAll(".plot[data-plot]")) {
    figure.querySelector("select")?.addEventListener("change", () => drawFigure(figure));
    seen.observe(figure);
  }
}

function chooseObjective() {
  const select = document.getElementById("objective");
  if (!select) return;
  options(select, STUDY.names.map((_, at) => at), STUDY.names);
  select.addEventListener("change", () => {
    view.objective = Number(select.value);
    redraw();
  });
}
