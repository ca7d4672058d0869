// What the model says of a request before anything is launched.

import { el, number, part, spoken } from "./dom.js";
import { remedies } from "./remedies.js";
import { bars } from "./split.js";

const HEADS = [["GPUs", "gpus"], ["USD/hour", "usd_per_hour"], ["TTFT, ms", "ttft_ms"], ["TPOT, ms", "tpot_ms"], ["Goodput, req/s", "goodput_req_per_s"]];
const SHOWN = 10;

export function planShown(plan, fill) {
  const held = plan.ranked.slice(0, SHOWN);
  const dropped = el("details", {}, el("summary", {}, "What was dropped, and why"), el("ul", {}, ...plan.dropped.map(group)));
  const found = plan.infeasible ? remedies(plan.infeasible, fill) : null;
  const unsure = plan.device_notes.map((note) => el("p", {}, note));
  return part("planned", "What the model says", found, ...unsure, held.length ? table(plan, held) : null, first(held[0]), plan.dropped.length ? dropped : null);
}

function table(plan, held) {
  const head = [el("th", { scope: "col" }, "Layout"), ...HEADS.map(([name]) => el("th", { scope: "col", class: "number" }, name)), el("th", { scope: "col" }, "Meets the SLO")];
  const rows = held.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.layout)), ...HEADS.map(([, key]) => el("td", { class: "number" }, number(row[key]))), el("td", {}, row.meets_slo ? "✓ yes" : "✗ no")));
  const caption = `The first ${held.length} of ${plan.ranked.length} layouts that the model kept, of ${plan.candidates} candidates; means at the asked rate`;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The plan" }, el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

function first(row) {
  if (!row || !row.breakdown) return null;
  const parts = [["One prompt alone, to its first token", row.breakdown.ttft_ms], ["Each further token of one request alone", row.breakdown.tpot_ms]];
  const drawn = parts.map(([title, ms]) => el("div", {}, el("h3", {}, title), ...bars(title, ms)));
  return el("details", {}, el("summary", {}, "Where the milliseconds of the first go"), el("div", { class: "split" }, ...drawn));
}

const group = (one) => el("li", {}, `${one.count} for ${spoken(one.reason)}, such as `, el("code", {}, one.example), `: ${one.figure}`);
