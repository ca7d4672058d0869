// All studies, the newest first.

import { get } from "./api.js";
import { el, spoken, when } from "./dom.js";

const STATES = ["queued", "running", "paused", "decided", "failed", "cancelled"];

export async function showList(place, signal, say) {
  const body = el("tbody");
  const more = el("button", {}, "More");
  const chosen = el("select", { id: "state" }, el("option", { value: "" }, "all"), ...STATES.map((state) => el("option", { value: state }, state)));
  let cursor = null;

  async function page(fresh) {
    const words = new URLSearchParams({ limit: "50" });
    if (chosen.value) words.set("state", chosen.value);
    if (!fresh && cursor) words.set("cursor", cursor);
    const found = await get(`/v1/studies?${words}`);
    if (signal.aborted) return;
    if (fresh) body.replaceChildren();
    body.append(...found.studies.map(row));
    if (!body.children.length) body.append(empty(chosen.value));
    cursor = found.next;
    more.hidden = !cursor;
  }

  await page(true);
  const lost = () => signal.aborted || say("The service cannot be reached: this is how it was.", true);
  const again = () => page(true).then(() => say(""), lost);
  const timer = setInterval(() => document.hidden || scrollY > 400 || again(), 5000);
  signal.addEventListener("abort", () => clearInterval(timer));
  chosen.addEventListener("change", again);
  more.addEventListener("click", () => page(false).catch(lost));
  const names = ["Study", "State", "Model", "Objective", "Trials", "Asked"];
  const head = el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name))));
  const table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Studies" }, el("table", {}, head, body));
  const filter = el("p", { class: "row" }, el("label", { for: "state" }, "Show"), el("span", {}, chosen));
  place.append(el("section", {}, el("h1", {}, "Studies"), filter, table, more));
}

function row(study) {
  const link = el("a", { href: `#/studies/${encodeURIComponent(study.name)}` }, study.name);
  const state = el("span", { class: `state ${study.state}` }, study.state);
  const cells = [state, study.model, spoken(study.objective), String(study.trials), when(study.created_at)];
  return el("tr", {}, el("th", { scope: "row" }, link), ...cells.map((cell) => el("td", {}, cell)));
}

function empty(state) {
  const words = state ? [`No study is ${state}.`] : ["Nobody has asked for anything yet. ", el("a", { href: "#/ask" }, "Ask for a layout"), "."];
  return el("tr", {}, el("td", { colspan: "6", class: "empty" }, ...words));
}
