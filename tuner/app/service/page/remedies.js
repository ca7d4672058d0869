// What would make a request feasible: each change as a button, where a request can say it.

import { el } from "./dom.js";

// `fill` gets a function that puts the change into a request.
export function remedies(found, fill) {
  const buttons = found.would_take.map((change) => {
    const how = applied(change);
    return how ? el("button", { type: "button", onclick: () => fill(how, change) }, change.text) : el("p", {}, change.text);
  });
  const bounds = el("ul", {}, ...found.bounds.map((bound) => el("li", {}, bound.text)));
  const words = buttons.length ? el("p", {}, "Each of these alone would do:") : null;
  return el("div", { class: "verdict none" }, el("p", {}, "By the model, no layout meets the SLO."), bounds, words, el("div", { class: "row" }, ...buttons));
}

// How a change is put into a request; null where a person has to.
export function applied(change) {
  const found = { slo, rate, slo_and_rate, nodes: devices("nodes"), gpus_per_node: devices("gpus_per_node"), link: link(change) }[change.kind];
  return found ? (request) => found(request, change) : null;
}

function slo(request, change) {
  for (const one of request.slo) {
    const percentile = one.percentile ?? 99;
    if (change.what === "all") one.ms = Math.ceil(one.ms * change.value);
    else if (change.what === `${one.metric} p${percentile}`) one.ms = Math.ceil(change.value);
  }
}

function rate(request, change) {
  request.workload.arrival.requests_per_s = Math.floor(change.value * 100) / 100;
}

function slo_and_rate(request, change) {
  slo(request, change);
  rate(request, { value: change.rate_req_per_s });
}

const groups = (request) => (Array.isArray(request.cluster) ? request.cluster : [request.cluster]);

function devices(key) {
  return (request, change) => {
    for (const group of groups(request)) if (group.gpu === change.what) group[key] = change.value;
  };
}

function link(change) {
  if (change.what === "nvlink_domain") return null; // other machines
  return (request) => {
    for (const group of groups(request)) group.inter_node_gb_per_s = change.value;
  };
}
