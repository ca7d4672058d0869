// The trials with what went wrong in them, and their logs.

import { Problem, get } from "./api.js";
import { el, part, spoken } from "./dom.js";

export function trials(base) {
  const list = el("ul", { class: "plain" });
  const box = part("logs", "Trials and their logs", list);
  const rows = new Map();
  box.hidden = true;

  function show(found) {
    for (const trial of found) {
      if (!rows.has(trial.number)) {
        rows.set(trial.number, row());
        list.append(rows.get(trial.number).item);
      }
      rows.get(trial.number).show(trial);
    }
    box.hidden = rows.size === 0;
  }

  function row() {
    const fate = el("span", { class: "fate" });
    const name = el("span");
    const detail = el("p", { class: "quiet" });
    const text = el("pre", { tabindex: "0", hidden: true, role: "region" });
    const button = el("button", { "aria-expanded": "false", onclick: toggle }, "Log");
    const item = el("li", {}, el("div", { class: "row" }, fate, name, button), detail, text);
    let trial = null;

    async function toggle() {
      text.hidden = !text.hidden;
      button.setAttribute("aria-expanded", String(!text.hidden));
      if (!text.hidden) text.textContent = await log(trial);
    }
    function update(now) {
      trial = now;
      fate.className = `fate ${now.state}`;
      fate.textContent = now.failure ? spoken(now.failure) : now.state;
      name.replaceChildren(`Trial ${now.number + 1} `, el("code", {}, now.layout));
      detail.textContent = now.detail || "";
      detail.hidden = !now.detail;
      button.setAttribute("aria-label", `Log of trial ${now.number + 1}`);
      text.setAttribute("aria-label", `Log of trial ${now.number + 1}`);
    }
    return { item, show: update };
  }

  // What the trial's own files say; where this machine has none, the last lines that the store kept of a failed one.
  async function log(trial) {
    if (trial.state === "failed" && trial.log_tail.length) {
      return ["The last lines of its log:", ...trial.log_tail].join("\n");
    }
    try {
      return await get(`${base}/trials/${trial.number}/log?tail=200`);
    } catch (error) {
      if (!(error instanceof Problem)) return "The service cannot be reached.";
      return error.message;
    }
  }
  return { box, show };
}
