// The form's fields: each is one place of the request, with what is wrong there below it.

import { el, spoken } from "./dom.js";
import { at } from "./request.js";

const OBJECTIVES = ["min_gpus", "min_cost", "max_goodput", "min_latency"];
const METRICS = ["ttft", "tpot", "itl", "e2e"];
const OTHER = "(as in the YAML)"; // what a list of choices cannot say: two objectives, a space of one's own
const GROUPS = [
  ["What is served", [["model", "Model", "text", "models"]]],
  ["Where", [["cluster.gpu", "GPU", "text", "gpus"], ["cluster.nodes", "Nodes", "number"], ["cluster.gpus_per_node", "GPUs per node", "number"]]],
  ["Load", [["workload.prompt_tokens.mean", "Prompt tokens", "number"], ["workload.output_tokens.mean", "Output tokens", "number"], ["workload.arrival.requests_per_s", "Requests per second", "number"]]],
  ["Targets", null],
  ["Search", [["objective", "Objective", OBJECTIVES], ["space", "Search space", "spaces"], ["budget.launches", "Launches at most", "number"], ["budget.minutes", "Minutes at most", "number"]]],
];

// `edited(path, value)` is told of every change; `names` are what the service knows by name.
export function fields(names, edited) {
  const inputs = new Map();
  const targets = el("div");
  let latest = {};

  function place(path, label, input, given) {
    const id = `f-${path}`;
    const wrong = el("p", { class: "wrong", id: `${id}-wrong`, role: "alert" });
    input.id = id;
    input.setAttribute("aria-describedby", wrong.id);
    input.addEventListener("change", () => input.value !== OTHER && edited(path, given(input.value)));
    inputs.set(path, { input, wrong });
    return el("div", { class: path === "model" ? "wide" : null }, el("label", { for: id }, label), input, wrong);
  }

  const text = (value) => value || undefined;
  const numeric = (value) => (value === "" ? undefined : Number(value));
  const figure = () => el("input", { type: "number", min: "0", step: "any" });
  const choice = (values, name) => el("select", {}, ...values.map((value) => el("option", { value }, name(value))));

  function field([path, label, kind, list]) {
    if (kind === "number") return place(path, label, figure(), numeric);
    if (kind === "text") return place(path, label, el("input", { type: "text", list: `list-${list}`, autocomplete: "off" }), text);
    const values = kind === "spaces" ? Object.keys(names.spaces) : kind;
    return place(path, label, choice(["", ...values], (value) => (value ? spoken(value) : "the usual one")), text);
  }

  function target(index) {
    const inside = [
      place(`slo.${index}.metric`, "Metric", choice(METRICS, (value) => value.toUpperCase()), text),
      place(`slo.${index}.percentile`, "Percentile", figure(), numeric),
      place(`slo.${index}.ms`, "Limit, ms", figure(), numeric),
    ];
    const fewer = () => edited("slo", latest.slo.filter((_, other) => other !== index));
    return el("div", { class: "target" }, ...inside, el("button", { type: "button", "aria-label": `Remove target ${index + 1}`, onclick: fewer }, "×"));
  }

  // The rows of the targets stay where their number does: who is typing in one is not thrown out of it.
  function fill(request) {
    latest = request;
    const count = Array.isArray(request.slo) ? request.slo.length : 0;
    if (count !== targets.children.length) {
      for (const key of [...inputs.keys()]) if (key.startsWith("slo.")) inputs.delete(key);
      targets.replaceChildren(...Array.from({ length: count }, (_, index) => target(index)));
    }
    for (const [path, { input }] of inputs) {
      let value = at(request, path);
      if (value === undefined && path.endsWith("_tokens.mean")) value = at(request, path.slice(0, -5));
      if (input.tagName === "SELECT") choose(input, value);
      else if (typeof value !== "object") input.value = value ?? "";
    }
  }

  function choose(input, value) {
    const listed = [...input.options].some((option) => option.value === (value ?? ""));
    const other = [...input.options].find((option) => option.value === OTHER);
    if (listed && other) other.remove();
    if (!listed && !other) input.append(el("option", { value: OTHER }, OTHER));
    input.value = listed ? (value ?? "") : OTHER;
  }

  // Says at its field what is wrong; false where no field is its place.
  function judge(path, words) {
    for (const { input, wrong } of inputs.values()) {
      input.removeAttribute("aria-invalid");
      wrong.textContent = "";
    }
    const found = path && (inputs.get(path) || inputs.get(`${path}.mean`));
    if (!found) return false;
    found.input.setAttribute("aria-invalid", "true");
    found.wrong.textContent = words;
    return true;
  }

  const lists = ["models", "gpus"].map((key) => el("datalist", { id: `list-${key}` }, ...names[key].map((value) => el("option", { value }))));
  const groups = (more) => GROUPS.map(([title, found]) => el("fieldset", {}, el("legend", {}, title), ...(found ? [el("div", { class: "fields" }, ...found.map(field))] : [targets, more])));
  return { lists, groups, fill, judge };
}
