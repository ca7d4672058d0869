// The parts of the report, drawn anew as the study goes on: what the person had opened stays open.

import { charts } from "./charts.js";
import { el } from "./dom.js";

const MIDDLE = "ranks"; // the last part before where the milliseconds go

export function pictures(signal) {
  const head = el("div");
  const body = el("div");
  const tail = el("div");
  const roots = [head, body, tail];
  const paint = charts(roots, signal);
  const summaries = () => roots.flatMap((root) => [...root.querySelectorAll("summary")]);

  async function draw(found) {
    const open = new Set(summaries().filter((one) => one.parentElement.open).map((one) => one.textContent));
    const focused = summaries().find((one) => one === document.activeElement)?.textContent;
    const holder = document.createElement("template");
    holder.innerHTML = found.sections.join("\n"); // escaped by the service; the policy of the page runs no script in it
    const parts = [...holder.content.children];
    const verdict = parts.findIndex((one) => one.classList.contains("verdict")) + 1;
    const middle = parts.findIndex((one) => one.getAttribute("aria-labelledby") === MIDDLE) + 1 || parts.length;
    head.replaceChildren(...parts.slice(0, verdict));
    body.replaceChildren(...parts.slice(verdict, middle));
    tail.replaceChildren(...parts.slice(middle));
    for (const summary of summaries()) {
      if (open.has(summary.textContent)) summary.parentElement.open = true;
      if (summary.textContent === focused) summary.focus({ preventScroll: true });
    }
    await paint(found.figures);
  }
  return { head, body, tail, draw };
}
