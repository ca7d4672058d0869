// The frame: which page stands behind the "#", who asks, and what is said when something goes wrong.

import { Problem, get, token } from "./api.js";
import { showAsk } from "./ask.js";
import { el } from "./dom.js";
import { showList } from "./list.js";
import { showStudy } from "./study.js";

const main = document.getElementById("main");
const line = document.getElementById("line");
let leaving = new AbortController();

function say(text, bad = false) {
  line.textContent = text;
  line.classList.toggle("bad", bad);
}

const pages = [
  [/^#?\/?$/, () => [showList, "Studies"]],
  [/^#\/ask$/, () => [showAsk, "Ask"]],
  [/^#\/studies\/([^/]+)$/, (found) => [(place, signal) => showStudy(place, decodeURIComponent(found[1]), signal, say), decodeURIComponent(found[1])]],
];

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const hash = location.hash;
  for (const link of document.querySelectorAll("nav a")) {
    if ((hash || "#/") === link.getAttribute("href")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  say("");
  for (const [pattern, page] of pages) {
    const found = pattern.exec(hash);
    if (!found) continue;
    const [render, title] = page(found);
    document.title = `${title} · Parlay`;
    main.replaceChildren(el("p", { class: "skeleton" }, "Loading…"));
    const place = el("div");
    try {
      await render(place, signal, say);
      if (!signal.aborted) main.replaceChildren(place);
    } catch (error) {
      if (!signal.aborted) failed(error);
    }
    return;
  }
  main.replaceChildren(el("section", {}, el("h1", {}, "There is no such page"), el("p", {}, el("a", { href: "#/" }, "All studies"))));
}

function failed(error) {
  if (error instanceof Problem && error.status === 401) {
    main.replaceChildren(askToken(error.message));
    return;
  }
  const text = error instanceof Problem ? error.message : "The service cannot be reached.";
  const again = el("button", { onclick: show }, "Try again");
  main.replaceChildren(el("section", { class: "verdict none" }, el("h1", {}, "That did not work"), el("p", { role: "alert" }, text), again));
}

function askToken(why) {
  const field = el("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const submit = (event) => {
    event.preventDefault();
    token.set(field.value);
    show();
  };
  const words = token.get() ? why : "This service asks for a token. Whoever runs it makes one with: parlay token create";
  const form = el("form", { onsubmit: submit }, el("label", { for: "token" }, "Token"), field, el("p", { class: "row" }, el("button", { class: "main" }, "Go on")));
  return el("section", {}, el("h1", {}, "Who asks?"), el("p", { role: token.get() ? "alert" : null }, words), form, el("p", { class: "quiet" }, "It is kept until this tab is closed, and sent to this service alone."));
}

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
get("/v1/version").catch(() => say("The service cannot be reached.", true));
show();
