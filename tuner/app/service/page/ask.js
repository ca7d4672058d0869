// The form, and the same request as YAML: either can be edited, and the service says what is wrong and where.

import { Problem, get, post } from "./api.js";
import { el } from "./dom.js";
import { fields } from "./fields.js";
import { planShown } from "./plan.js";
import { keep, kept, put } from "./request.js";

const TYPING_MS = 350;

export async function showAsk(place, signal, say) {
  const form = fields(await get("/v1/names"), edited);
  let request = kept();
  const text = el("textarea", { id: "yaml", spellcheck: "false", "aria-describedby": "yaml-wrong", "aria-labelledby": "yaml-title" });
  const textWrong = el("p", { class: "wrong", id: "yaml-wrong", role: "alert" });
  const result = el("div", { "aria-live": "polite" });
  const name = el("input", { id: "f-name", type: "text", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off" });
  const queue = el("button", { class: "main" }, "Start the study");
  const dry = el("button", { type: "button", onclick: planned }, "Show the plan");
  let turn = 0;

  function judged(problem) {
    queue.disabled = dry.disabled = Boolean(problem);
    const words = problem ? `Got ${problem.given}; allowed: ${problem.allowed}` : "";
    const path = problem && (problem.where || "").replace(/^request: /, "");
    const elsewhere = !form.judge(path, words) && problem;
    textWrong.textContent = elsewhere ? `${problem.where}: ${words}` : "";
    text.toggleAttribute("aria-invalid", Boolean(elsewhere));
    if (elsewhere) text.setAttribute("aria-invalid", "true");
  }

  // Has the service read a request and say what is wrong in it; of several answers the last asked for counts.
  async function settle(body, written) {
    const mine = (turn += 1);
    try {
      const found = await post("/v1/requests", body);
      if (mine !== turn || signal.aborted) return;
      request = found.document;
      keep(request);
      if (written) text.value = found.text;
      form.fill(request);
      judged(found.problem);
    } catch (error) {
      if (!(error instanceof Problem)) say("The service cannot be reached: what you wrote is not checked.", true);
      else if (error.status === 401) throw error;
      else judged(error.where ? error : { where: "text", given: "this", allowed: error.message });
    }
  }

  const write = () => settle({ document: request }, true);
  function edited(path, value) {
    put(request, path, value);
    return write();
  }
  let waiting;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => settle({ text: text.value }, false), TYPING_MS);
  });

  const wrong = (error) => el("section", { class: "verdict none" }, el("p", { role: "alert" }, error instanceof Problem ? error.message : "The service cannot be reached."));

  async function busy(button, work) {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      result.replaceChildren(wrong(error));
    } finally {
      button.disabled = false;
    }
  }

  function send(event) {
    event.preventDefault();
    if (queue.disabled) return;
    busy(queue, async () => {
      const key = { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) };
      const made = await post("/v1/studies", { request, ...(name.value ? { name: name.value } : {}) }, key);
      location.hash = `#/studies/${encodeURIComponent(made.name)}`;
    });
  }

  function planned() {
    busy(dry, async () => {
      result.replaceChildren(el("p", { class: "skeleton" }, "Planning…"));
      const plan = await post("/v1/plans", { request });
      if (!signal.aborted) result.replaceChildren(planShown(plan, filled));
    });
  }

  async function filled(how, change) {
    how(request);
    await write();
    result.replaceChildren(el("p", { class: "quiet" }, `The form now has ${change.text}.`));
    dry.focus();
  }

  const more = () => edited("slo", [...(request.slo || []), { metric: "e2e", percentile: 95, ms: 5000 }]);
  const add = el("button", { type: "button", onclick: more }, "Add a target");
  const label = el("label", { for: "f-name" }, "Name of the study (made from the request where it is empty)");
  const asked = el("form", { onsubmit: send, novalidate: true }, ...form.groups(add), label, name, el("div", { class: "row" }, queue, dry));
  const written = el("section", { class: "written" }, el("h2", { id: "yaml-title" }, "The same as YAML"), text, textWrong);
  place.append(...form.lists, el("div", { class: "split" }, el("section", {}, el("h1", {}, "Ask for a layout"), asked), written), result);
  await settle({ document: request }, true);
}
