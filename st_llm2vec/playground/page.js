"use strict";

// Asks for one encoder after the other, and shows each as it comes. A later run makes an earlier one's answers stale.
const form = document.getElementById("question");
const main = document.querySelector("main");
const state = document.getElementById("state");
const error = document.getElementById("error");
const most = Number(form.dataset.most);
const boxes = [...form.querySelectorAll("input[type=checkbox]")];
const places = ["nearest", "read", "similar"].map((name) => document.getElementById(name));
let run = 0;
let asking = null;

function chosen() {
  return boxes.filter((box) => box.checked).map((box) => box.dataset.model
    ? { model: box.dataset.model, recipe: null }
    : { model: form.elements.decoder.value, recipe: box.dataset.recipe });
}

function limit() {
  const full = chosen().length >= most;
  for (const box of boxes) box.disabled = full && !box.checked;
}

function complain(sentence) {
  error.textContent = sentence;
  error.hidden = !sentence;
}

// The pieces are made by the server, where everything that was typed is escaped.
function put(place, html, old) {
  const holder = document.createElement("template");
  holder.innerHTML = (html || "").trim();
  const card = holder.content.firstElementChild;
  if (old && card) old.replaceWith(card);
  else if (old) old.remove();
  else if (card) place.append(card);
  return card;
}

function waiting(place, text) {
  const card = document.createElement("article");
  card.className = "card waiting";
  card.textContent = text;
  place.append(card);
  return card;
}

async function ask(fields, choice, signal) {
  const answer = await fetch("compare", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...fields, ...choice }),
    signal,
  }).catch(() => {
    throw new Error("The server does not answer. Is it still running?");
  });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || "The server failed; its terminal says why.");
  return found;
}

async function compare() {
  const mine = ++run;
  if (asking) asking.abort();
  asking = new AbortController();
  complain("");
  state.textContent = "";
  main.hidden = true;
  const choices = chosen();
  if (!choices.length) return complain("Nothing is chosen. Choose a recipe at least.");
  const fields = Object.fromEntries(["query", "passages", "instruction"].map((name) => [name, form.elements[name].value]));
  for (const place of places) place.replaceChildren();
  const cards = choices.map((choice) => places.map((place) => waiting(place, `${choice.recipe || choice.model} …`)));
  const seen = new Set();
  main.hidden = false;
  try {
    for (const [at, choice] of choices.entries()) {
      state.textContent = `${choice.recipe || choice.model}: ${at + 1} of ${choices.length} …`;
      const found = await ask(fields, choice, asking.signal);
      if (mine !== run) return;
      put(places[0], found.nearest, cards[at][0]);
      put(places[1], found.read, cards[at][1]);
      put(places[2], found.similar, cards[at][2]);
      if (found.words && !seen.has(found.words.model)) {
        seen.add(found.words.model);
        for (const place of [places[0], places[2]]) put(place, found.words[place.id]).classList.add("words");
      }
    }
    state.textContent = "";
  } catch (failure) {
    if (mine !== run) return;
    main.hidden = true;
    state.textContent = "";
    complain(failure.message);
  }
}

form.addEventListener("change", limit);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
places[1].addEventListener("click", (event) => {
  const token = event.target.closest(".tokens span");
  if (!token) return;
  const card = token.closest(".card");
  card.querySelector(".chosen")?.classList.remove("chosen");
  token.classList.add("chosen");
  card.querySelector(".told").textContent = `“${token.textContent}”: ${token.title}`;
});
limit();
