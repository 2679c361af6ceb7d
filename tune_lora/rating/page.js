"use strict";
// What is shown is what the server says; an answer counts once the server has written it down.

const at = (id) => document.getElementById(id);
let state = null;
let busy = true;

function picture(name, side, number) {
  const image = document.createElement("img");
  image.alt = `${side}, picture ${number}`;
  image.src = `picture/${name}`;
  return image;
}

async function load(images) {
  await Promise.all(images.map((image) => image.decode()));
}

function enable() {
  const judging = !busy && state !== null && state.pair !== null;
  for (const id of ["left", "right", "a", "b", "tie"]) at(id).disabled = !judging;
  at("undo").disabled = busy || state === null || !state.can_undo;
  at("finish").disabled = at("more").disabled = busy || state === null;
}

function tell(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = problem === "";
}

async function show(next) {
  state = next;
  at("question").textContent = state.question;
  at("bar").max = Math.max(1, state.total);
  at("bar").value = Math.min(state.done, state.total);
  at("count").textContent = `${state.done} of ${state.total} pairs, ${Math.max(0, state.total - state.done)} left · ${state.rater}`;
  at("more").textContent = `${state.more} pairs more`;
  const judging = state.pair !== null;
  at("pair").hidden = !judging;
  at("done").hidden = judging;
  for (const id of ["a", "b", "tie"]) at(id).hidden = !judging;
  if (!judging) return;
  const images = [];
  for (const [id, side] of [["left", "A"], ["right", "B"]]) {
    at(id).classList.remove("chosen");
    const pictures = state.pair[id].map((name, index) => picture(name, side, index + 1));
    at(id).replaceChildren(...pictures);
    images.push(...pictures);
  }
  await load(images); // nothing is judged that was not seen
}

async function ask(path, said) {
  busy = true;
  enable();
  try {
    const answer = await fetch(path, said === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said),
    });
    const told = await answer.json();
    if (told.error) throw new Error(told.error);
    await show(told);
    tell("");
    return true;
  } catch (error) {
    for (const id of ["left", "right"]) at(id).classList.remove("chosen");
    const known = String(error.message).startsWith("not saved");
    tell(known ? error.message : "The program in the terminal does not answer; this was not saved. Start it again and open its new address: what you have judged is there.");
    return false;
  } finally {
    busy = false;
    enable();
  }
}

function judge(choice) {
  if (busy || state === null || state.pair === null) return;
  if (choice !== "tie") at(choice).classList.add("chosen");
  ask("judge", { pair: state.pair.id, choice });
}

function undo() {
  if (!busy && state !== null && state.can_undo) ask("undo", {});
}

async function finish() {
  if (busy || state === null) return;
  if (!(await ask("finish", {}))) return;
  state.pair = null;
  for (const id of ["pair", "keys", "more"]) at(id).hidden = true;
  at("done").hidden = false;
  at("thanks").textContent = `${state.done} pairs are judged and saved. Thank you.`;
  at("then").textContent = "The terminal shows what they come to. This page can be closed.";
}

const KEYS = { ArrowLeft: () => judge("left"), ArrowRight: () => judge("right"), ArrowDown: () => judge("tie"), ArrowUp: () => judge("tie"), u: undo };

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return; // a key that is held down is one answer
  event.preventDefault();
  act();
});
for (const [id, act] of [["left", () => judge("left")], ["right", () => judge("right")], ["a", () => judge("left")], ["b", () => judge("right")],
  ["tie", () => judge("tie")], ["undo", undo], ["finish", finish], ["more", () => ask("more", {})]]) at(id).addEventListener("click", act);
enable();
ask("state");
