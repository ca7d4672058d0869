// What happened in a study, in words. Trials are counted from 1, as in the report.

import { number, spoken } from "./dom.js";

const trial = (data) => `Trial ${data.trial + 1}`;
const wrong = (result) => `failed: ${spoken(result.failure)}${result.detail ? `, ${result.detail}` : ""}`;
const targets = (measured) => measured.slo.map((one) => `${one.target}: ${number(one.ms, " ms")}`).join("; ");

export const words = {
  state: (data) => `It is ${data.state}.`,
  asked: (data) => `Somebody asked to ${data.wish} it.`,
  planned: (data) => `${data.kept} of ${data.candidates} candidates are left after the plan.`,
  remembered: (data) => `It begins with what ${data.studies.join(", ")} taught.`,
  trial_started: (data) => `${trial(data)}, ${data.purpose}: ${data.layout} — ${data.why}.`,
  launching: (data) => `${trial(data)}: ${data.text}`,
  ready: (data) => `${trial(data)} answers after ${number(data.ready_after_s, " s")}.`,
  step_started: (data) => `${trial(data)}: ${phase(data)}.`,
  step_measured: (data) => (data.warmup ? null : `${trial(data)} at ${number(data.measured.rate_req_per_s)} requests/s: ${targets(data.measured)}.`),
  trial_finished: (data) => `${trial(data)} ${data.result.failure ? wrong(data.result) : data.result.state}.`,
  best_so_far: (data) => (data.layout ? `Best so far: ${data.layout}; ${data.spent.launches} launches, ${number(data.spent.gpu_hours)} GPU-hours.` : null),
  resumed: (data) => `Taken up again with ${data.finished} finished trials.`,
  ended: (data) => `Nothing more is launched: ${data.why}.`,
};

export const phase = (data) => `${data.warmup ? "warming up" : `load step ${data.step + 1} of ${data.steps}`} at ${number(data.rate_req_per_s)} requests/s`;
