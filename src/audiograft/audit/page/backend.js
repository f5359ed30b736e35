"use strict";

// Where clips come from and verdicts go: the server, or in a static export the data in the page and the browser's own store.
const Backend = (() => {
  const LONGEST_ANSWER_MS = 30000;
  const island = Dom.byId("data");

  function served() {
    const token = document.querySelector('meta[name="audiograft-token"]').content;

    async function call(path, body) {
      const post = {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Audiograft-Token": token },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(LONGEST_ANSWER_MS),
      };
      const response = await fetch(path, body === undefined ? { cache: "no-store" } : post);
      if (response.ok) return response.json();
      let reason = `${response.status} ${response.statusText}`;
      try {
        const { detail } = await response.json();
        if (typeof detail === "string") reason = detail;
      } catch {
        // No JSON: the status has to do.
      }
      // What was refused for what it says will be refused again; anything else may pass.
      throw Object.assign(new Error(reason), { isRefusal: [400, 413].includes(response.status) });
    }

    const of = (rater) => `rater=${encodeURIComponent(rater)}`;
    return {
      isStatic: false,
      fixedRater: null,
      run: () => call("/api/run"),
      clips: async (rater) => (await call(`/api/clips?${of(rater)}`)).clips,
      verdicts: (rater) => call(`/api/verdicts?${of(rater)}`),
      judge: async (entry) => (await call("/api/verdicts", entry)).verdict,
      undo: (rater, event_id) => call("/api/undo", { rater, event_id }),
      results: () => call("/api/results"),
      patterns: () => call("/api/patterns"),
      audio: (clip, part) => `/audio/${clip.i}?n=${part}`,
      peaks: (clip, part) => call(`/api/peaks/${clip.i}?n=${part}`),
    };
  }

  // The log's format, one event after the other: what is downloaded can be taken in as it stands.
  function packed(data) {
    const key = `${data.run.fingerprint}${data.run.blind ? "/blind" : ""}`;
    const events = () => Dom.remembered(key, []);

    function add(event) {
      const line = { ...event, run: data.run.fingerprint, time: new Date().toISOString() };
      if (!Dom.remember(key, [...events(), line])) {
        throw new Error("this browser keeps nothing for this page: allow it to store data, or open the page in another one");
      }
      return line;
    }

    function inForce(rater) {
      const stack = [];
      for (const event of events()) {
        if (event.rater !== rater) continue;
        if (event.event === "undo") stack.pop();
        else stack.push(event);
      }
      return stack;
    }

    function current(rater) {
      const found = { ...(data.verdicts[rater] ?? {}) };
      for (const event of inForce(rater)) found[event.id] = event;
      return found;
    }

    async function judge({ event_id, rater, id, verdict, choice, corrected, tags, note }) {
      const given = { verdict: verdict ?? null, blind: data.run.blind, choice: choice ?? null, corrected, tags, note };
      return add({ event: "verdict", event_id, rater, id, ...given });
    }

    async function undo(rater, event_id) {
      const last = inForce(rater).pop();
      if (last === undefined) return { id: null, verdict: null };
      add({ event: "undo", event_id, rater });
      return { id: last.id, verdict: current(rater)[last.id] ?? null };
    }

    function download() {
      const text = events().map((event) => `${JSON.stringify(event)}\n`).join("");
      const link = Dom.make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" })), download: "verdicts.jsonl" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }

    const raters = () => [...new Set([...Object.keys(data.verdicts), ...events().map((event) => event.rater)])];
    return {
      isStatic: true,
      fixedRater: data.run.blind ? data.run.rater : null,
      run: async () => data.run,
      clips: async () => data.clips,
      verdicts: async (rater) => ({ verdicts: current(rater), raters: raters() }),
      judge,
      undo,
      download,
      results: async () => data.results,
      patterns: async () => data.patterns,
      audio: (clip, part) => data.audio[clip.i]?.[part] ?? null,
      peaks: async (clip, part) => data.peaks[clip.i]?.[part] ?? null,
    };
  }

  return island ? packed(JSON.parse(island.textContent)) : served();
})();
