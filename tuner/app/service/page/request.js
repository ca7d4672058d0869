// A request as a document: reading and writing one place of it, and the one that the form begins with.

export const START = {
  model: "meta-llama/Llama-3.1-8B",
  cluster: { gpu: "h100_sxm", nodes: 1, gpus_per_node: 8 },
  workload: { prompt_tokens: { mean: 1024 }, output_tokens: { mean: 128 }, arrival: { process: "poisson", requests_per_s: 8 } },
  slo: [{ metric: "ttft", percentile: 99, ms: 500 }, { metric: "tpot", percentile: 99, ms: 30 }],
  objective: "min_gpus",
  space: "dense",
  budget: { launches: 6, minutes: 60 },
};
const KEPT = "parlay-request";

export function kept() {
  const text = sessionStorage.getItem(KEPT);
  return text ? JSON.parse(text) : structuredClone(START);
}

export const keep = (request) => sessionStorage.setItem(KEPT, JSON.stringify(request));

export const at = (document, path) => path.split(".").reduce((part, key) => (part === null || part === undefined ? undefined : part[key]), document);

// `undefined` takes the place out of the request.
export function put(document, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  let part = document;
  for (const key of keys) {
    if (typeof part[key] !== "object" || part[key] === null) part[key] = key.endsWith("_tokens") && typeof part[key] === "number" ? { mean: part[key] } : {};
    part = part[key];
  }
  part[last] = value;
}

// Without what a request leaves to its default: nobody wrote that.
export function bare(document) {
  if (Array.isArray(document)) return document.map(bare);
  if (document === null || typeof document !== "object") return document;
  return Object.fromEntries(Object.entries(document).filter(([, value]) => value !== null).map(([key, value]) => [key, bare(value)]));
}
