// Charts by plotly.js, which is fetched with the first of them, in the colours of the page's theme.

import { el } from "./dom.js";

const CONFIG = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
let loading = null;

function plotly() {
  loading ||= new Promise((done, failed) => {
    document.head.append(el("script", { src: "/assets/plotly.js", onload: done, onerror: failed }));
  });
  return loading;
}

// "$name" stands for the theme's colour of that name.
function themed(value, style) {
  if (typeof value === "string" && value.startsWith("$")) return style.getPropertyValue(`--${value.slice(1)}`).trim();
  if (Array.isArray(value)) return value.map((inner) => themed(inner, style));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, style)]));
  return value;
}

// Draws figures into the places below `roots` that are named after them, again when the theme changes; until `signal`.
export function charts(roots, signal) {
  let figures = {};
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.data && target.clientWidth) globalThis.Plotly.Plots.resize(target);
  });

  function paint() {
    const style = getComputedStyle(document.documentElement);
    for (const where of roots.flatMap((root) => [...root.querySelectorAll("[data-figure]")])) {
      const figure = figures[where.dataset.figure];
      if (!figure) continue;
      const { data, layout } = themed(figure, style);
      globalThis.Plotly.react(where, data, layout, CONFIG);
      resized.observe(where);
    }
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => globalThis.Plotly && paint(), { signal });
  signal.addEventListener("abort", () => resized.disconnect());
  return async (found) => {
    figures = found;
    resized.disconnect();
    if (!Object.keys(figures).length) return;
    await plotly();
    if (!signal.aborted) paint();
  };
}
