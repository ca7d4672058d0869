"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  // "$name" stands for the theme's colour of that name.
  const themed = (value, style) => {
    if (typeof value === "string" && value.startsWith("$")) return style.getPropertyValue("--" + value.slice(1)).trim();
    if (Array.isArray(value)) return value.map((inner) => themed(inner, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, style)]));
    }
    return value;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = figures[place.dataset.figure];
      if (figure) {
        const { data, layout } = themed(figure, style);
        Plotly.react(place, data, layout, config);
      }
    }
  };

  // A place can change its width without the window doing so: a printed page, a turned phone.
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.data) Plotly.Plots.resize(target);
  });

  draw();
  document.querySelectorAll("[data-figure]").forEach((place) => resized.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
