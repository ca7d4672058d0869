// What is deployed of a study: how it stands, what serves, what is being done about it; and what a person may ask of that.

import { Problem, get, post } from "./api.js";
import { charts } from "./charts.js";
import { el, part, spoken, sure, when } from "./dom.js";

const EVERY_MS = 5000;
const DRAWN_EVERY_MS = 30000;
const STATES = { well: "Well", blind: "Cannot be seen", noticed: "Something changed", held: "Held back", acting: "Acting", failed: "Failed" };
const ASKED = { veto: ["Veto?", "What serves before comes back, and this layout is not tried again."], force: ["Force it?", "It is promoted whatever the canary says, or begun whatever else than a pause holds it back."] };
const ENDS = new Set(["done", "rolled_back", "failed"]);

export function deployed(base, signal, say) {
  const state = el("span", { class: "state" });
  const now = el("p", { role: "status", "aria-live": "polite" });
  const notices = el("ul", { class: "plain" });
  const held = el("ul", { class: "plain" });
  const buttons = el("div", { class: "row", role: "group", "aria-label": "Ask of the watcher" });
  const rows = el("tbody");
  const table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Deployments" }, el("table", {}, el("thead", {}, el("tr", {}, ...["Deployment", "Layout", "State", "Traffic", "Serves since"].map((name) => el("th", { scope: "col" }, name)))), rows));
  const happened = el("ol", { tabindex: "0", "aria-label": "What the watcher did, the latest first" });
  const figure = el("figure", { hidden: true }, el("figcaption", {}, "Attainment, requests and layouts over time"), el("div", { class: "chart", "data-figure": "timeline", role: "group", "aria-label": "Attainment, requests and layouts over time; the figures are in the table below" }));
  const box = part("deployed", "What is deployed", el("p", { class: "row" }, state), now, notices, held, buttons, figure, table, el("details", {}, el("summary", {}, "What the watcher did"), happened));
  const paint = charts([figure], signal);
  let tag = "";
  let drawn = -Infinity;
  box.hidden = true;

  async function ask(what) {
    if (ASKED[what] && !(await sure(...ASKED[what]))) return;
    try {
      show(await post(`${base}/watch/${what}`));
    } catch (error) {
      say(error instanceof Problem ? error.message : "The service cannot be reached.", true);
    }
  }

  function wishes(found) {
    const open = found.rollouts.length && !ENDS.has(found.rollouts[0].step);
    const judged = found.standing && found.standing.judgement;
    const proposed = judged && judged.action !== "nothing" && judged.outlook && judged.outlook.best;
    return [...(open || proposed ? ["approve", "veto", "force"] : []), found.paused ? "resume" : "pause"];
  }

  function show(found) {
    const standing = found.standing || { state: "blind", text: "Nobody has looked yet.", notices: [], judgement: null };
    box.hidden = false;
    state.textContent = found.paused ? `${STATES[standing.state]}, paused` : STATES[standing.state];
    state.className = `state ${standing.state}`;
    const watcher = found.watcher ? "" : " Nobody watches it now.";
    if (now.textContent !== standing.text + watcher) now.textContent = standing.text + watcher; // or it is spoken again
    notices.replaceChildren(...standing.notices.map((one) => el("li", {}, el("b", {}, spoken(one.kind)), ` ${one.evidence}`)));
    const by = standing.judgement ? Object.entries(standing.judgement.held_by) : [];
    held.replaceChildren(...by.map(([name, words]) => el("li", {}, el("b", {}, `held by ${spoken(name)}`), ` ${words}`)));
    const asked = wishes(found);
    if (buttons.dataset.asked !== asked.join()) buttons.replaceChildren(...asked.map((what) => el("button", { class: ASKED[what] ? "danger" : null, onclick: () => ask(what) }, what[0].toUpperCase() + what.slice(1))));
    buttons.dataset.asked = asked.join();
    const [latest] = found.rollouts;
    rows.replaceChildren(...found.deployments.map((one) => row(one, latest)));
    happened.replaceChildren(...found.happened.slice(0, 40).map((one) => el("li", {}, `${when(one.at)}: ${one.text}`)));
  }

  function row(one, rollout) {
    const open = rollout && !ENDS.has(rollout.step);
    const share = one.state !== "serving" ? "–" : !open ? "100 %" : `${Math.round(100 * (one.name === rollout.new ? rollout.share : 1 - rollout.share))} %`;
    const cells = [one.layout, spoken(one.state), share, one.serving_since === null ? "–" : when(one.serving_since)];
    return el("tr", {}, el("th", { scope: "row" }, one.name), ...cells.map((text) => el("td", {}, text)));
  }

  async function draw() {
    if (performance.now() - drawn < DRAWN_EVERY_MS) return;
    drawn = performance.now();
    const { figures } = await get(`${base}/watch/picture`);
    figure.hidden = !figures.timeline;
    await paint(figures);
  }

  async function look() {
    const found = await get(`${base}/watch`);
    const same = JSON.stringify(found);
    if (same !== tag) show(found);
    tag = same;
    await draw();
  }

  async function follow() {
    while (!signal.aborted) {
      try {
        await look();
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return; // nothing of it is watched
      }
      await new Promise((again) => setTimeout(again, EVERY_MS));
    }
  }
  return { box, follow };
}
