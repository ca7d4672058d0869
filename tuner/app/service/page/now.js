// What runs now: each trial with why it was chosen, and how far it is; and what waits for devices of other studies.

import { el, number } from "./dom.js";
import { phase } from "./words.js";

export function running() {
  const cards = new Map();
  const box = el("div", { class: "at-work", hidden: true });
  const waits = el("p", { class: "card", hidden: true });

  const changes = {
    trial_started(data) {
      waits.hidden = true;
      const doing = el("span", {}, "being launched");
      const bar = el("progress", { "aria-label": `Trial ${data.trial + 1}: how far it is`, max: "1", value: "0" });
      const seen = el("p", { class: "quiet" });
      const title = el("p", {}, el("b", {}, `Trial ${data.trial + 1}`), `${data.engine_of === undefined ? ` of at most ${data.launches}` : ", same engine"}, `, el("code", {}, data.layout));
      const why = el("p", {}, `${data.purpose === "confirm" ? "Confirmation" : "Chosen"}: ${data.why}.`);
      const card = el("div", { class: "card" }, title, why, el("p", { class: "row" }, bar, doing), seen);
      cards.set(data.trial, { card, doing, bar, seen });
      box.append(card);
    },
    launching: (data, at) => (at.doing.textContent = data.text),
    ready: (data, at) => (at.doing.textContent = `answers after ${number(data.ready_after_s, " s")}`),
    step_started(data, at) {
      at.doing.textContent = phase(data);
      at.bar.max = data.steps + 1; // a warm-up comes before them
      at.bar.value = data.warmup ? 0.5 : data.step + 1;
    },
    step_measured(data, at) {
      if (!data.warmup) at.seen.textContent = `Last: ${data.measured.slo.map((one) => `${one.target}: ${number(one.ms, " ms")}`).join("; ")}`;
    },
    trial_finished(data, at) {
      at.card.remove();
      cards.delete(data.trial);
    },
  };

  function clear() {
    cards.clear();
    waits.hidden = true;
    box.replaceChildren(waits);
    box.hidden = true;
  }

  function told({ kind, data }) {
    if (kind === "state" && data.state !== "running") clear();
    if (kind === "waiting") {
      waits.replaceChildren(el("code", {}, data.layout), ` ${data.text}`);
      waits.hidden = false;
    }
    const change = changes[kind];
    const at = cards.get(data.trial);
    if (change && (at || kind === "trial_started")) change(data, at);
    box.hidden = cards.size === 0 && waits.hidden;
  }
  clear();
  return { box, told };
}
