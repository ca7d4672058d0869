// What all parts of the page are made of: elements, figures, a question to the person.

// Makes an element: el("p", {class: "quiet"}, "text", child). Text is never read as HTML.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const spoken = (name) => name.replaceAll("_", " ");
export const when = (seconds) => new Date(seconds * 1000).toLocaleString();
export const number = (value, unit = "") => (value === null || value === undefined ? "–" : `${Number(value.toPrecision(4))}${unit}`);

// A part of the page with a title.
export const part = (id, title, ...children) => el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);

// Resolves to true where the person says yes.
export function sure(title, text) {
  const { promise, resolve } = Promise.withResolvers();
  const answer = (words, value, kind) => el("button", { class: kind, onclick: () => box.close(value) }, words);
  const box = el("dialog", { "aria-labelledby": "sure" }, el("h2", { id: "sure" }, title), el("p", {}, text), el("p", { class: "row" }, answer("No", "", null), answer("Yes", "yes", "danger")));
  box.addEventListener("close", () => {
    resolve(box.returnValue === "yes");
    box.remove();
  });
  document.body.append(box);
  box.showModal();
  return promise;
}
