"use strict";

// The verdicts of one rater. What could not be saved stays in a queue that outlives the page, is shown, and is tried again.
const Verdicts = (() => {
  const LONGEST_WAIT_MS = 30000;
  let run = null;
  let rater = "";
  let current = new Map();
  let queue = [];
  let failure = null;
  let sending = null;
  let timer = 0;
  let wait_ms = 1000;
  let changed = () => {};

  const key = () => `unsaved/${run.fingerprint}${run.blind ? "/blind" : ""}`;
  const mine = () => queue.filter((item) => item.entry.rater === rater);
  const keep = () => Dom.remember(key(), queue.map((item) => item.entry));
  const shown = ({ verdict, choice, corrected, tags, note }, unsaved) => ({ verdict, choice, corrected, tags: tags ?? [], note, unsaved });

  function start(ofRun, onChange) {
    run = ofRun;
    changed = onChange;
    queue = Dom.remembered(key(), []).map((entry) => ({ entry }));
  }

  async function load(name) {
    const answer = await Backend.verdicts(name);
    rater = name;
    current = new Map(Object.entries(answer.verdicts).map(([id, verdict]) => [id, shown(verdict, false)]));
    const arrived = mine().filter(({ entry }) => isSaid(entry));
    queue = queue.filter((item) => !arrived.includes(item));
    keep();
    for (const item of mine()) place(item);
    send();
    return answer.raters;
  }

  // Whether the server has a verdict of the queue after all: the page was left before its answer came.
  function isSaid({ id, verdict, choice, corrected, tags, note }) {
    const known = current.get(id);
    const said = (one) => JSON.stringify([choice === undefined ? one.verdict : one.choice, one.corrected, one.tags, one.note]);
    return known !== undefined && said(known) === said({ verdict, choice, corrected, tags, note });
  }

  function place(item) {
    item.before = current.get(item.entry.id);
    current.set(item.entry.id, shown(item.entry, true));
  }

  function set(id, verdict) {
    if (verdict) current.set(id, verdict);
    else current.delete(id);
  }

  function judge(id, given) {
    const item = { entry: { rater, id, ...given } };
    queue.push(item);
    keep();
    place(item);
    changed();
    return send();
  }

  // One at a time and in order: an undo takes back the last one that arrived.
  function send() {
    sending ??= sendAll().finally(() => { sending = null; });
    return sending;
  }

  async function sendAll() {
    clearTimeout(timer);
    while (queue.length) {
      const { entry } = queue[0];
      try {
        await Backend.judge(entry);
      } catch (error) {
        failure = error instanceof TypeError ? "the server can't be reached; is audiograft audit still running?" : error.message;
        timer = setTimeout(send, wait_ms);
        wait_ms = Math.min(2 * wait_ms, LONGEST_WAIT_MS);
        changed();
        return;
      }
      queue.shift();
      keep();
      if (entry.rater === rater && !mine().some((item) => item.entry.id === entry.id)) set(entry.id, shown(entry, false));
    }
    failure = null;
    wait_ms = 1000;
    changed();
  }

  // What was undone: {id, before, now}, or null where nothing is left to undo.
  async function undo() {
    await sending;
    const unsaved = mine().pop();
    if (unsaved) {
      queue.splice(queue.indexOf(unsaved), 1);
      keep();
      const before = current.get(unsaved.entry.id);
      set(unsaved.entry.id, unsaved.before);
      if (!queue.length) failure = null;
      changed();
      return { id: unsaved.entry.id, before, now: unsaved.before ?? null };
    }
    const { id, verdict } = await Backend.undo(rater);
    if (id === null) return null;
    const before = current.get(id);
    set(id, verdict && shown(verdict, false));
    changed();
    return { id, before, now: verdict };
  }

  return {
    start, load, judge, undo, send,
    of: (id) => current.get(id),
    rater: () => rater,
    count: () => current.size,
    unsaved: () => ({ count: queue.length, failure }),
  };
})();
