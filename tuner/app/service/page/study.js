// One study, while it goes on and after: what runs now and why, the pictures of the report, and what can be done.

import { Problem, ask, el, get, listen, number, post, when } from "./api.js";

const OVER = new Set(["decided", "failed", "cancelled"]);
const STEERING = { queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"], decided: [], failed: ["resume"], cancelled: ["resume"] };
const FORMATS = [["ray-serve", "Ray Serve config", "yaml"], ["rayservice", "KubeRay RayService", "yaml"], ["helm-values", "Helm values", "yaml"], ["vllm", "vLLM command line", "sh"]];
const REDRAW = new Set(["planned", "trial_started", "step_measured", "trial_finished", "best_so_far", "state"]);
const SHOWN_EVENTS = 60;

export async function showStudy(place, name, signal, say) {
  const base = `/v1/studies/${encodeURIComponent(name)}`;
  const state = el("span", { class: "state" });
  const buttons = el("span", { class: "row" });
  const facts = el("p", { class: "quiet" });
  const problem = el("p", { class: "bad", role: "alert" });
  const happened = el("ol", { "aria-label": "What happened, the latest first" });
  const now = el("p", { "aria-live": "polite" }, "Waiting for a worker.");
  const pictures = el("div");
  const specs = el("div");
  const split = el("section", { "aria-labelledby": "split", hidden: true });
  const logs = el("div");
  let study = await get(base);
  let figures = {};
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.data && target.clientWidth) globalThis.Plotly.Plots.resize(target);
  });
  let drawn = 0;

  function header() {
    state.textContent = study.state;
    state.className = `state ${study.state}`;
    const order = study.order;
    facts.textContent = `${study.request.model}, asked ${when(study.created_at)}${order ? `, on ${order.launcher}, priority ${order.priority}` : ", by the command line"}`;
    problem.textContent = (order && order.problem) || "";
    const steering = order ? STEERING[study.state] || [] : [];
    buttons.replaceChildren(...steering.map((what) => el("button", { class: what === "cancel" ? "danger" : null, onclick: () => steer(what) }, what[0].toUpperCase() + what.slice(1))));
    if (order && order.wish) now.textContent = `Asked to ${order.wish}: what runs is being torn down.`;
    else if (study.state === "paused") now.textContent = "Paused. Nothing runs; nothing that was measured is lost.";
    else if (study.state === "cancelled") now.textContent = "Cancelled. Resume goes on where it stopped.";
  }

  async function steer(what) {
    if (what === "cancel" && !(await sure(`Cancel ${name}?`, "What runs is torn down. It can be resumed later."))) return;
    try {
      study = await post(`${base}/${what}`);
      header();
      if (what === "resume") follow();
    } catch (error) {
      say(error.message, true);
    }
  }

  const words = {
    state: (data) => `It is ${data.state}.`,
    asked: (data) => `Somebody asked to ${data.wish} it.`,
    planned: (data) => `${data.kept} of ${data.candidates} candidates are left after the plan.`,
    remembered: (data) => `It begins with what ${data.studies.join(", ")} taught.`,
    trial_started: (data) => `Trial ${data.trial}, ${data.purpose}: ${data.layout} — ${data.why}.`,
    launching: (data) => `Trial ${data.trial}: ${data.text}`,
    ready: (data) => `Trial ${data.trial} answers after ${number(data.ready_after_s, " s")}.`,
    step_started: (data) => `Trial ${data.trial}: ${data.warmup ? "warming up" : `load step ${data.step + 1} of ${data.steps}`} at ${number(data.rate_req_per_s)} requests/s.`,
    step_measured: (data) => (data.warmup ? null : `Trial ${data.trial} at ${number(data.measured.rate_req_per_s)} requests/s: ${data.measured.slo.map((one) => `${one.target}: ${number(one.ms, " ms")}`).join("; ")}.`),
    trial_finished: (data) => `Trial ${data.trial} ${data.result.failure ? `failed: ${data.result.failure.replaceAll("_", " ")}${data.result.detail ? `, ${data.result.detail}` : ""}` : data.result.state}.`,
    best_so_far: (data) => (data.layout ? `Best so far: ${data.layout}; ${data.spent.launches} launches, ${number(data.spent.gpu_hours)} GPU-hours.` : null),
    resumed: (data) => `Taken up again with ${data.finished} finished trials.`,
    ended: (data) => `Nothing more is launched: ${data.why}.`,
  };

  async function told(event) {
    const text = words[event.kind] && words[event.kind](event.data);
    if (text) {
      happened.prepend(el("li", {}, text));
      while (happened.children.length > SHOWN_EVENTS) happened.lastChild.remove();
      if (event.kind !== "state") now.textContent = text;
    }
    if (event.kind === "trial_finished") logButtons();
    if (REDRAW.has(event.kind)) redraw();
    if (event.kind === "state" || event.kind === "asked") {
      study.state = event.data.state || study.state;
      header();
      study = await get(base);
      header();
      if (study.state === "decided") now.textContent = "Decided.";
    }
  }

  let pending = false;
  async function redraw() {
    if (pending || signal.aborted) return;
    pending = true;
    const pause = Math.max(0, drawn + 1000 - performance.now());
    await new Promise((go) => setTimeout(go, pause));
    pending = false;
    drawn = performance.now();
    try {
      const found = await get(`${base}/picture`);
      if (!signal.aborted) await draw(found);
    } catch (error) {
      if (!(error instanceof Problem)) say("The service cannot be reached.", true);
    }
    if (study.state === "decided") await Promise.all([shipped(), explained()]);
  }

  async function draw(found) {
    const open = new Set([...pictures.querySelectorAll("details[open] summary")].map((one) => one.textContent));
    figures = found.figures;
    const holder = document.createElement("template");
    holder.innerHTML = found.sections.join("\n"); // escaped by the service; the policy of the page runs no script in it
    resized.disconnect();
    pictures.replaceChildren(holder.content);
    for (const summary of pictures.querySelectorAll("summary")) if (open.has(summary.textContent)) summary.parentElement.open = true;
    if (Object.keys(figures).length) {
      await plotly();
      charts();
    }
  }

  function charts() {
    const style = getComputedStyle(document.documentElement);
    for (const where of pictures.querySelectorAll("[data-figure]")) {
      const figure = figures[where.dataset.figure];
      if (figure) {
        const { data, layout } = themed(figure, style);
        globalThis.Plotly.react(where, data, layout, { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
        resized.observe(where);
      }
    }
  }

  async function logButtons() {
    const found = await get(`${base}/decision`);
    const rows = found.trials.map((trial) => el("li", {}, `Trial ${trial.number}: `, el("code", {}, trial.layout), ` ${trial.failure ? trial.failure.replaceAll("_", " ") : trial.state} `, el("button", { onclick: (event) => log(trial.number, event.target) }, "Log")));
    logs.replaceChildren(el("ul", { class: "plain" }, ...rows));
  }

  async function log(trial, button) {
    const shown = button.parentElement.querySelector("pre");
    if (shown) return shown.remove();
    let text;
    try {
      text = await get(`${base}/trials/${trial}/log?tail=200`);
    } catch (error) {
      text = error.message;
    }
    return button.parentElement.append(el("pre", { tabindex: "0" }, text));
  }

  async function explained() {
    if (!split.hidden || split.dataset.asked) return;
    split.dataset.asked = "yes";
    const found = await get(`${base}/explanation`);
    const layout = found.layouts.find((one) => one.breakdown);
    if (!layout) return;
    const parts = [["One prompt alone, to its first token", layout.breakdown.ttft_ms], ["Each further token of one request alone", layout.breakdown.tpot_ms]];
    split.replaceChildren(el("h2", { id: "split" }, "Where the milliseconds go"), el("p", { class: "quiet" }, "By the model, for ", el("code", {}, layout.layout)), el("div", { class: "split" }, ...parts.map(([title, terms]) => el("div", {}, el("h3", {}, title), ...bars(terms)))));
    split.hidden = false;
  }

  async function shipped() {
    if (specs.dataset.asked) return;
    specs.dataset.asked = "yes";
    const found = [];
    for (const [format, title, suffix] of FORMATS) {
      try {
        found.push(spec(title, await get(`${base}/specs/${format}`), `${name}-${format}.${suffix}`));
      } catch (error) {
        if (error instanceof Problem && error.status === 409) {
          specs.replaceChildren(el("p", {}, error.message));
          return;
        }
      }
    }
    specs.replaceChildren(...found);
  }

  function spec(title, text, file) {
    const copy = el("button", { onclick: async () => { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; } }, "Copy");
    const link = el("a", { class: "button", download: file, href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) }, "Download");
    return el("details", {}, el("summary", {}, title), el("p", { class: "row" }, copy, link), el("pre", { tabindex: "0" }, text));
  }

  function follow() {
    const line = (up) => say(up ? "" : "The line to the service is broken; trying again.", !up);
    listen(name, seen, (event) => { seen = event.id; told(event).catch((error) => say(error.message, true)); }, line, signal).catch((error) => say(error.message, true));
  }

  let seen = 0;
  header();
  const title = el("section", { class: "now" }, el("h1", {}, name, " ", state), facts, problem, now, buttons, el("details", { open: !OVER.has(study.state) }, el("summary", {}, "What happened"), happened));
  const ship = el("section", { "aria-labelledby": "ship" }, el("h2", { id: "ship" }, "Deploy the winner"), specs);
  const trials = el("section", { "aria-labelledby": "logs" }, el("h2", { id: "logs" }, "Logs of the trials"), logs);
  const report = el("button", { onclick: whole }, "Whole report as a file");
  place.append(title, pictures, split, ship, trials, el("p", { class: "row" }, report));
  const unseen = (error) => say(error.message, true);
  if (study.candidates !== null) get(`${base}/picture`).then(draw).catch(unseen);
  if (study.trials) logButtons().catch(unseen);
  if (study.state === "decided") Promise.all([shipped(), explained()]).catch(unseen);
  follow();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const again = () => globalThis.Plotly && charts();
  dark.addEventListener("change", again);
  signal.addEventListener("abort", () => dark.removeEventListener("change", again));

  async function whole() {
    const text = await ask("GET", `${base}/report`);
    const link = el("a", { download: `${name}.html`, href: URL.createObjectURL(new Blob([text], { type: "text/html" })) });
    link.click();
  }
}

function bars(terms) {
  const most = Math.max(...Object.values(terms), 0);
  return Object.entries(terms).map(([term, ms]) => el("div", { class: "bar" }, el("span", {}, term.replaceAll("_", " ")), el("meter", { min: "0", max: String(most || 1), value: String(ms), "aria-label": `${term}: ${number(ms)} ms` }), el("span", {}, number(ms, " ms"))));
}

function themed(value, style) {
  if (typeof value === "string" && value.startsWith("$")) return style.getPropertyValue(`--${value.slice(1)}`).trim();
  if (Array.isArray(value)) return value.map((inner) => themed(inner, style));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, style)]));
  return value;
}

let loading = null;
function plotly() {
  loading ||= new Promise((done, failed) => {
    const script = el("script", { src: "/assets/plotly.js", onload: done, onerror: failed });
    document.head.append(script);
  });
  return loading;
}

function sure(title, text) {
  const { promise, resolve } = Promise.withResolvers();
  const box = el("dialog", { "aria-labelledby": "sure" }, el("h2", { id: "sure" }, title), el("p", {}, text), el("p", { class: "row" }, el("button", { class: "danger", onclick: () => box.close("yes") }, "Yes"), el("button", { onclick: () => box.close("") }, "No")));
  box.addEventListener("close", () => { resolve(box.returnValue === "yes"); box.remove(); });
  document.body.append(box);
  box.showModal();
  return promise;
}
