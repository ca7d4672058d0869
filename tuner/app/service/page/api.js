// Talks to the service: JSON with the token that the person gave, and a study's events for as long as it runs.

const TOKEN = "parlay-token";
export const OVER = new Set(["decided", "failed", "cancelled"]); // what a study is in whose stream nothing comes any more

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `the service answered ${status}`);
    this.status = status;
    this.where = body.where;
    this.given = body.given;
    this.allowed = body.allowed;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) || "",
  set: (text) => sessionStorage.setItem(TOKEN, text.trim()),
};

const headers = (more = {}) => (token.get() ? { ...more, Authorization: `Bearer ${token.get()}` } : more);

async function answered(response) {
  if (response.ok) return response;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // no body, or none of ours
  }
  throw new Problem(response.status, body);
}

export async function ask(method, path, body, more = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, headers: headers({ ...json, ...more }), body: body === undefined ? undefined : JSON.stringify(body) };
  const response = await answered(await fetch(path, options));
  if (response.status === 204) return null;
  return (response.headers.get("Content-Type") || "").includes("json") ? response.json() : response.text();
}

export const get = (path) => ask("GET", path);
export const post = (path, body, more) => ask("POST", path, body, more);

// Calls told(event) for each event behind `after`, and line(up) when the line breaks or is there again; until `signal`.
export async function listen(study, after, told, line, signal) {
  let last = after;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const options = { headers: headers({ "Last-Event-ID": String(last) }), signal };
      const response = await answered(await fetch(`/v1/studies/${encodeURIComponent(study)}/events`, options));
      line(true);
      wait = 500;
      let rest = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const event = parsed(block);
          if (event) {
            last = event.id;
            told(event);
          }
        }
      }
      // It ends with the study, where that is paused (the next one waits until it goes on), and with the token.
      if (OVER.has((await get(`/v1/studies/${encodeURIComponent(study)}`)).state)) return;
      await new Promise((again) => setTimeout(again, wait));
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) throw error;
      line(false);
      await new Promise((again) => setTimeout(again, wait));
      wait = Math.min(wait * 2, 10000);
    }
  }
}

function parsed(block) {
  const fields = {};
  for (const row of block.split("\n")) {
    const colon = row.indexOf(": ");
    if (colon > 0) fields[row.slice(0, colon)] = row.slice(colon + 2);
  }
  return fields.data ? { id: Number(fields.id), kind: fields.event, data: JSON.parse(fields.data) } : null;
}
