// One study, while it goes on and after: where it stands, what can be done with it, and all that is shown of it.

import { OVER, Problem, ask, get, listen, post } from "./api.js";
import { deployed } from "./deployed.js";
import { el, sure, when } from "./dom.js";
import { running } from "./now.js";
import { pictures } from "./pictures.js";
import { remedies } from "./remedies.js";
import { bare, keep } from "./request.js";
import { ship } from "./ship.js";
import { split } from "./split.js";
import { trials } from "./trials.js";
import { words } from "./words.js";

const STEERING = { queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"], decided: [], failed: ["resume"], cancelled: ["resume"] };
const STANDS = { queued: "Waiting for a worker.", paused: "Paused. Nothing runs; nothing that was measured is lost.", cancelled: "Cancelled. Resume goes on where it stopped.", failed: "It failed. Resume tries again where it stopped.", decided: "Decided." };
const REDRAW = new Set(["planned", "trial_started", "step_measured", "trial_finished", "best_so_far", "believed", "state"]);
const SHOWN_EVENTS = 60;
const REDRAW_MS = 1000;
const SPOKEN_MS = 300; // what happens faster is told as its last alone

export async function showStudy(place, name, signal, say) {
  const base = `/v1/studies/${encodeURIComponent(name)}`;
  let study = await get(base);
  const state = el("span", { class: "state" });
  const buttons = el("div", { class: "row" });
  const facts = el("p", { class: "quiet" });
  const problem = el("p", { class: "bad", role: "alert" });
  const happened = el("ol", { tabindex: "0", "aria-label": "What happened, the latest first" });
  const now = el("p", { "aria-live": "polite" });
  const changes = el("div");
  const parts = { cards: running(), seen: pictures(signal), ship: ship(base, name), split: split(base), trials: trials(base), deployed: deployed(base, signal, say) };
  const unseen = (error) => signal.aborted || say(error instanceof Problem ? error.message : "The service cannot be reached.", true);

  function header() {
    const { order } = study;
    state.textContent = study.state;
    state.className = `state ${study.state}`;
    facts.textContent = `${study.request.model}, asked ${when(study.created_at)}${order ? `, on ${order.launcher}, priority ${order.priority}` : ", by the command line"}`;
    problem.textContent = (order && order.problem) || "";
    const steering = order ? STEERING[study.state] || [] : [];
    const made = steering.map((what) => el("button", { class: what === "cancel" ? "danger" : null, onclick: () => steer(what) }, what[0].toUpperCase() + what.slice(1)));
    const again = el("button", { onclick: () => askAgain(() => {}) }, "Ask for another like it");
    const whole = study.candidates === null ? [] : [el("button", { onclick: report }, "Whole report as a file")];
    if (buttons.dataset.state !== study.state) buttons.replaceChildren(...made, again, ...whole); // or they would lose the focus
    buttons.dataset.state = study.state;
    if (order && order.wish) speak(`Asked to ${order.wish}: what runs is being torn down.`);
    else if (STANDS[study.state]) speak(STANDS[study.state]);
  }

  let speaking;
  function speak(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => (now.textContent = text), now.textContent ? SPOKEN_MS : 0);
  }

  async function steer(what) {
    if (what === "cancel" && !(await sure(`Cancel ${name}?`, "What runs is torn down. It can be resumed later."))) return;
    try {
      const over = OVER.has(study.state);
      study = await post(`${base}/${what}`);
      header();
      if (over) follow();
    } catch (error) {
      unseen(error);
    }
  }

  function askAgain(how) {
    const request = bare(study.request);
    how(request);
    keep(request);
    location.hash = "#/ask";
  }

  async function told(event) {
    if (event.kind === "planned") study.candidates = event.data.candidates;
    const text = words[event.kind] && words[event.kind](event.data);
    parts.cards.told(event);
    if (text) {
      happened.prepend(el("li", {}, text));
      while (happened.children.length > SHOWN_EVENTS) happened.lastChild.remove();
      if (event.kind !== "state") speak(text);
    }
    if (REDRAW.has(event.kind)) redraw();
    if (event.kind === "state" || event.kind === "asked") {
      study = await get(base);
      header();
    }
  }

  let drawn = 0;
  let pending = false;
  async function redraw() {
    if (pending || signal.aborted || study.candidates === null) return;
    pending = true;
    await new Promise((go) => setTimeout(go, Math.max(0, drawn + REDRAW_MS - performance.now())));
    pending = false;
    drawn = performance.now();
    await show().catch(unseen);
  }

  async function show() {
    if (signal.aborted) return;
    const [picture, decision] = await Promise.all([get(`${base}/picture`), get(`${base}/decision`)]);
    if (signal.aborted) return;
    parts.trials.show(decision.trials);
    if (decision.infeasible) changes.replaceChildren(el("section", {}, remedies(decision.infeasible, askAgain)));
    await Promise.all([parts.seen.draw(picture), parts.split.show(decision), ...(decision.ended ? [parts.ship.show(decision)] : [])]);
  }

  let last = 0;
  function follow() {
    const line = (up) => say(up ? "" : "The line to the service is broken; trying again.", !up);
    const heard = (event) => {
      last = event.id;
      told(event).catch(unseen);
    };
    listen(name, last, heard, line, signal).catch(unseen);
  }

  async function report() {
    try {
      const text = await ask("GET", `${base}/report`);
      el("a", { download: `${name}.html`, href: URL.createObjectURL(new Blob([text], { type: "text/html" })) }).click();
    } catch (error) {
      unseen(error);
    }
  }

  header();
  const history = el("details", { open: !OVER.has(study.state) }, el("summary", {}, "What happened"), happened);
  const title = el("section", { class: "now" }, el("h1", {}, name, " ", state), facts, problem, now, parts.cards.box, buttons, history);
  const { head, body, tail } = parts.seen;
  place.append(title, parts.deployed.box, head, changes, parts.ship.box, body, parts.split.box, parts.trials.box, tail);
  redraw();
  follow();
  parts.deployed.follow();
}
