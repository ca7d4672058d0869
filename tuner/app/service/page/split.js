// Where the milliseconds go, by hop and term, as the model prices the layout.

import { get } from "./api.js";
import { el, number, part, spoken } from "./dom.js";

export function split(base) {
  const body = el("div");
  const box = part("split", "Where the milliseconds go", body);
  let shown = "";
  box.hidden = true;

  // Of the layout that wins, or is the best so far.
  async function show(decision) {
    const layout = decision.winner && decision.winner.layout;
    if (!layout || layout === shown) return;
    shown = layout;
    const found = await get(`${base}/explanation?layout=${encodeURIComponent(layout)}`);
    const terms = found.layouts[0] && found.layouts[0].breakdown;
    if (!terms) return;
    const parts = [["One prompt alone, to its first token", terms.ttft_ms], ["Each further token of one request alone", terms.tpot_ms]];
    const drawn = parts.map(([title, ms]) => el("div", {}, el("h3", {}, title), ...bars(title, ms)));
    body.replaceChildren(el("p", { class: "quiet" }, "By the model, for ", el("code", {}, layout)), el("div", { class: "split" }, ...drawn));
    box.hidden = false;
  }
  return { box, show };
}

export function bars(title, terms) {
  const most = Math.max(...Object.values(terms), 0) || 1;
  return Object.entries(terms).map(([term, ms]) => {
    const label = `${title}: ${spoken(term)}, ${number(ms)} ms`;
    return el("div", { class: "bar" }, el("span", {}, spoken(term)), el("meter", { min: "0", max: String(most), value: String(ms), "aria-label": label }), el("span", {}, number(ms, " ms")));
  });
}
