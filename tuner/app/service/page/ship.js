// The winner's specs, each to copy or to download with one click.

import { Problem, get } from "./api.js";
import { el, part } from "./dom.js";

const FORMATS = [["ray-serve", "Ray Serve config", "yaml"], ["rayservice", "KubeRay RayService", "yaml"], ["kustomize", "Kustomization", "yaml"], ["helm-values", "Helm values", "yaml"], ["vllm", "vLLM command line", "sh"], ["layoutrequest", "LayoutRequest, to ask again with kubectl", "yaml"]];

export function ship(base, name) {
  const specs = el("div");
  const said = el("p", { class: "quiet", role: "status", "aria-live": "polite" });
  const box = part("ship", "Deploy the winner", specs, said);
  let shown = false;
  box.hidden = true;

  async function show(decision) {
    if (shown || !decision.winner) return;
    shown = true;
    box.hidden = false;
    box.append(...decision.device_notes.map((note) => el("p", {}, note)));
    if (decision.simulated) {
      specs.replaceChildren(el("p", {}, "The cluster was simulated: no spec of it ever ran, so there is none to deploy."));
      return;
    }
    specs.replaceChildren(...(await Promise.all(FORMATS.map(one))));
  }

  async function one([format, title, suffix]) {
    try {
      return spec(title, await get(`${base}/specs/${format}`), `${name}-${format}.${suffix}`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return el("p", { class: "quiet" }, `${title}: ${error.message}`); // what this layout cannot be written as
    }
  }

  function spec(title, text, file) {
    const shownText = el("pre", { tabindex: "0", role: "region", "aria-label": title }, text);
    const copy = el("button", { "aria-label": `Copy the ${title}`, onclick: copied }, "Copy");
    const address = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    const link = el("a", { class: "button", "aria-label": `Download the ${title}`, download: file, href: address }, "Download");
    const open = el("details", {}, el("summary", {}, `Look at ${file}`), shownText);
    async function copied() {
      try {
        await navigator.clipboard.writeText(text);
        said.textContent = `${title} is copied.`;
      } catch { // not a safe origin, or not allowed
        open.open = true;
        getSelection().selectAllChildren(shownText);
        said.textContent = `${title} is selected: copy it with your keys.`;
      }
    }
    return el("div", { class: "spec" }, el("h3", {}, title), el("p", { class: "row" }, copy, link), open);
  }
  return { box, show };
}
