// The form, and the same request as YAML: either can be edited, and the service says what is wrong and where.

import { Problem, el, get, number, post } from "./api.js";

const START = {
  model: "meta-llama/Llama-3.1-8B",
  cluster: { gpu: "h100_sxm", nodes: 1, gpus_per_node: 8 },
  workload: { prompt_tokens: { mean: 1024 }, output_tokens: { mean: 128 }, arrival: { process: "poisson", requests_per_s: 8 } },
  slo: [{ metric: "ttft", percentile: 99, ms: 500 }, { metric: "tpot", percentile: 99, ms: 30 }],
  objective: "min_gpus",
  space: "dense",
  budget: { launches: 6, minutes: 60 },
};
const FIELDS = [
  ["What is served", [["model", "Model", "text", "models"]]],
  ["Where", [["cluster.gpu", "GPU", "text", "gpus"], ["cluster.nodes", "Nodes", "number"], ["cluster.gpus_per_node", "GPUs per node", "number"]]],
  ["Load", [["workload.prompt_tokens.mean", "Prompt tokens", "number"], ["workload.output_tokens.mean", "Output tokens", "number"], ["workload.arrival.requests_per_s", "Requests per second", "number"]]],
  ["Search", [["objective", "Objective", ["min_gpus", "min_cost", "max_goodput", "min_latency"]], ["space", "Search space", "spaces"], ["budget.launches", "Launches at most", "number"], ["budget.minutes", "Minutes at most", "number"]]],
];
const METRICS = ["ttft", "tpot", "itl", "e2e"];

const at = (document, path) => path.split(".").reduce((part, key) => (part === null || part === undefined ? undefined : part[key]), document);
function put(document, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  let part = document;
  for (const key of keys) {
    if (typeof part[key] !== "object" || part[key] === null) part[key] = key.endsWith("_tokens") && typeof part[key] === "number" ? { mean: part[key] } : {};
    part = part[key];
  }
  part[last] = value;
}

export async function showAsk(place, signal, say) {
  const names = await get("/v1/names");
  const saved = sessionStorage.getItem("parlay-request");
  let request = saved ? JSON.parse(saved) : structuredClone(START);
  const inputs = new Map();
  const text = el("textarea", { id: "yaml", spellcheck: "false", "aria-describedby": "yaml-wrong", "aria-label": "The request as YAML" });
  const textWrong = el("p", { class: "wrong", id: "yaml-wrong", role: "alert" });
  const targets = el("div");
  const result = el("div", { "aria-live": "polite" });
  const queue = el("button", { class: "main", type: "button", onclick: send }, "Start the study");
  const dry = el("button", { type: "button", onclick: planned }, "Show the plan");
  let turn = 0;

  function field([path, label, kind, list]) {
    const id = `f-${path}`;
    const options = Array.isArray(kind) ? kind : kind === "spaces" ? Object.keys(names.spaces) : null;
    const input = options
      ? el("select", { id }, ...options.map((value) => el("option", { value }, value.replaceAll("_", " "))))
      : el("input", { id, type: kind, min: kind === "number" ? "0" : null, step: kind === "number" ? "any" : null, list: list ? `list-${list}` : null, autocomplete: "off" });
    const wrong = el("p", { class: "wrong", id: `${id}-wrong`, role: "alert" });
    input.setAttribute("aria-describedby", wrong.id);
    input.addEventListener("change", () => edited(path, kind === "number" ? Number(input.value) : input.value));
    inputs.set(path, { input, wrong });
    return el("div", { class: path === "model" ? "wide" : null }, el("label", { for: id }, label), input, wrong);
  }

  function target(index) {
    const row = ["metric", "percentile", "ms"].map((key) => {
      const path = `slo.${index}.${key}`;
      const labels = { metric: "Metric", percentile: "Percentile", ms: "At most, ms" };
      const input = key === "metric" ? el("select", { id: `f-${path}` }, ...METRICS.map((value) => el("option", { value }, value.toUpperCase()))) : el("input", { id: `f-${path}`, type: "number", min: "0", step: "any" });
      const wrong = el("p", { class: "wrong", id: `f-${path}-wrong`, role: "alert" });
      input.setAttribute("aria-describedby", wrong.id);
      input.value = at(request, path) ?? "";
      input.addEventListener("change", () => edited(path, key === "metric" ? input.value : Number(input.value)));
      inputs.set(path, { input, wrong });
      return el("div", {}, el("label", { for: `f-${path}` }, labels[key]), input, wrong);
    });
    const remove = el("button", { type: "button", "aria-label": `Remove target ${index + 1}`, onclick: () => { request.slo.splice(index, 1); write(); } }, "×");
    return el("div", { class: "target" }, ...row, remove);
  }

  function fill() {
    for (const key of [...inputs.keys()]) if (key.startsWith("slo.")) inputs.delete(key);
    targets.replaceChildren(...(Array.isArray(request.slo) ? request.slo.map((_, index) => target(index)) : []));
    for (const [path, { input }] of inputs) {
      let value = at(request, path);
      if (value === undefined && path.endsWith("_tokens.mean")) value = at(request, path.slice(0, -5));
      if (typeof value !== "object") input.value = value ?? "";
    }
  }

  function judged(problem) {
    for (const { input, wrong } of inputs.values()) {
      input.removeAttribute("aria-invalid");
      wrong.textContent = "";
    }
    text.removeAttribute("aria-invalid");
    textWrong.textContent = "";
    queue.disabled = dry.disabled = Boolean(problem);
    if (!problem) return;
    const path = (problem.where || "").replace(/^request: /, "");
    const words = `Got ${problem.given}; allowed: ${problem.allowed}`;
    const found = inputs.get(path) || inputs.get(`${path}.mean`);
    if (found) {
      found.input.setAttribute("aria-invalid", "true");
      found.wrong.textContent = words;
    } else {
      text.setAttribute("aria-invalid", "true");
      textWrong.textContent = `${problem.where}: ${words}`;
    }
  }

  async function settle(body, written) {
    const mine = (turn += 1);
    try {
      const found = await post("/v1/requests", body);
      if (mine !== turn || signal.aborted) return;
      request = found.document;
      sessionStorage.setItem("parlay-request", JSON.stringify(request));
      if (written) text.value = found.text;
      fill();
      judged(found.problem);
    } catch (error) {
      if (!(error instanceof Problem) || error.status === 401) throw error;
      judged(error.where ? error : { where: "text", given: "this", allowed: error.message });
    }
  }

  const write = () => settle({ document: request }, true);
  const edited = (path, value) => { put(request, path, value); return write(); };
  let waiting;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => settle({ text: text.value }, false), 350);
  });

  async function send() {
    queue.disabled = true;
    try {
      const made = await post("/v1/studies", { request, ...(name.value ? { name: name.value } : {}) }, { "Idempotency-Key": crypto.randomUUID() });
      location.hash = `#/studies/${encodeURIComponent(made.name)}`;
    } catch (error) {
      say(error.message, true);
      result.replaceChildren(el("section", { class: "verdict none" }, el("p", { role: "alert" }, error.message)));
    } finally {
      queue.disabled = false;
    }
  }

  async function planned() {
    dry.disabled = true;
    result.replaceChildren(el("p", { class: "skeleton" }, "Planning…"));
    try {
      const plan = await post("/v1/plans", { request });
      if (!signal.aborted) result.replaceChildren(planShown(plan));
    } catch (error) {
      result.replaceChildren(el("section", { class: "verdict none" }, el("p", { role: "alert" }, error.message)));
    } finally {
      dry.disabled = false;
    }
  }

  function planShown(plan) {
    const heads = ["Layout", "GPUs", "TTFT, ms", "TPOT, ms", "Goodput, req/s", "Meets the SLO"];
    const rows = plan.ranked.slice(0, 10).map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.layout)), ...[row.gpus, row.ttft_ms, row.tpot_ms, row.goodput_req_per_s].map((value) => el("td", { class: "number" }, number(value))), el("td", {}, row.meets_slo ? "yes" : "no")));
    const table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The plan" }, el("table", {}, el("caption", {}, `The first of ${plan.ranked.length} layouts that the model kept, of ${plan.candidates} candidates; means at the asked rate`), el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows)));
    const dropped = el("details", {}, el("summary", {}, "What was dropped, and why"), el("ul", {}, ...plan.dropped.map((one) => el("li", {}, `${one.count} for ${one.reason.replaceAll("_", " ")}, such as `, el("code", {}, one.example), `: ${one.figure}`))));
    return el("section", {}, el("h2", {}, "What the model says"), plan.infeasible ? remedies(plan.infeasible) : null, rows.length ? table : null, dropped);
  }

  function remedies(found) {
    const buttons = found.would_take.map((change) => {
      const how = applied(change);
      return how ? el("button", { type: "button", onclick: () => { how(request); write(); result.replaceChildren(); } }, change.text) : el("p", {}, change.text);
    });
    return el("div", { class: "verdict none" }, el("p", {}, "By the model, no layout meets the SLO."), el("ul", {}, ...found.bounds.map((bound) => el("li", {}, bound.text))), buttons.length ? el("p", {}, "Each of these alone would do:") : null, el("div", { class: "row" }, ...buttons));
  }

  const lists = ["models", "gpus"].map((key) => el("datalist", { id: `list-${key}` }, ...names[key].map((value) => el("option", { value }))));
  const groups = FIELDS.map(([title, fields]) => el("fieldset", {}, el("legend", {}, title), el("div", { class: "fields" }, ...fields.map(field))));
  const add = el("button", { type: "button", onclick: () => { request.slo = [...(request.slo || []), { metric: "e2e", percentile: 95, ms: 5000 }]; write(); } }, "Add a target");
  groups.splice(3, 0, el("fieldset", {}, el("legend", {}, "Targets"), targets, add));
  const name = el("input", { id: "f-name", type: "text", pattern: "[A-Za-z0-9][A-Za-z0-9._-]*", autocomplete: "off" });
  const form = el("form", { onsubmit: (event) => { event.preventDefault(); send(); } }, ...groups, el("label", { for: "f-name" }, "Name of the study (made from the request where it is empty)"), name, el("div", { class: "row" }, queue, dry));
  const written = el("section", {}, el("h2", {}, "The same as YAML"), text, textWrong);
  place.append(...lists, el("div", { class: "split" }, el("section", {}, el("h1", {}, "Ask for a layout"), form), written), result);
  await settle({ document: request }, true);
}

// How a change that the service proposes is put into a request; null where a person has to.
function applied(change) {
  if (change.kind === "rate") return (request) => put(request, "workload.arrival.requests_per_s", change.value);
  if (change.kind === "nodes") return (request) => put(request, "cluster.nodes", change.value);
  if (change.kind === "gpus_per_node") return (request) => put(request, "cluster.gpus_per_node", change.value);
  if (change.kind === "slo") {
    return (request) => {
      const wanted = request.slo.find((one) => change.what.toLowerCase().startsWith(`${one.metric} p${one.percentile}`)) || request.slo.find((one) => change.what.toLowerCase().startsWith(one.metric));
      if (wanted) wanted.ms = change.value;
    };
  }
  return null;
}
