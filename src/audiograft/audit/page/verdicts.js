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
  let line = Promise.resolve();
  let undoId = null;
  let timer = 0;
  let wait_ms = 1000;
  let changed = () => {};

  // One name for each, so that two windows do not write over each other's.
  const keptAs = (entry) => `${prefix()}${entry.event_id}`;
  const prefix = () => `unsaved/${run.fingerprint}${run.blind ? "/blind" : "/open"}/`;
  const mine = () => queue.filter((item) => item.entry.rater === rater);
  const shown = ({ verdict, choice, corrected, tags, note }, unsaved) => ({ verdict, choice, corrected, tags: tags ?? [], note, unsaved });

  function start(ofRun, onChange) {
    run = ofRun;
    changed = onChange;
    // `mayHaveArrived`: it was sent, and its answer is not known.
    queue = Dom.rememberedNames(prefix()).map((known) => ({ entry: Dom.remembered(known, null), mayHaveArrived: true })).filter(({ entry }) => entry?.event_id);
  }

  async function load(name) {
    const answer = await inTurn(() => Backend.verdicts(name));
    rater = name;
    current = new Map(Object.entries(answer.verdicts).map(([id, verdict]) => [id, shown(verdict, false)]));
    for (const item of mine()) place(item);
    send();
    return answer.raters;
  }

  function place(item) {
    item.before = current.get(item.entry.id);
    current.set(item.entry.id, shown(item.entry, true));
  }

  function set(id, verdict) {
    if (verdict) current.set(id, verdict);
    else current.delete(id);
  }

  function leaveQueue(items) {
    queue = queue.filter((item) => !items.includes(item));
    for (const { entry } of items) Dom.forget(keptAs(entry));
  }

  // One request at a time and in order: an undo takes back the last verdict that arrived.
  function inTurn(action) {
    const turn = line.then(action);
    line = turn.catch(() => {});
    return turn;
  }

  function judge(id, given) {
    const item = { entry: { event_id: Dom.newId(), rater, id, ...given }, mayHaveArrived: false };
    undoId = null;
    queue.push(item);
    Dom.remember(keptAs(item.entry), item.entry);
    place(item);
    changed();
    return send();
  }

  function send() {
    sending ??= inTurn(sendAll).finally(() => { sending = null; });
    return sending;
  }

  async function sendAll() {
    clearTimeout(timer);
    const refused = new Set();
    let problem = null;
    // What is refused stays in the queue, and does not hold up the others.
    for (let item = queue[0]; item; item = queue.find((other) => !refused.has(other))) {
      try {
        await deliver(item);
      } catch (error) {
        problem = reasonOf(error);
        if (!error.isRefusal) break;
        refused.add(item);
      }
    }
    failure = problem;
    if (problem === null) {
      wait_ms = 1000;
    } else {
      timer = setTimeout(send, wait_ms);
      wait_ms = Math.min(2 * wait_ms, LONGEST_WAIT_MS);
    }
    changed();
  }

  function reasonOf(error) {
    const isAway = error instanceof TypeError || error.name === "TimeoutError";
    return isAway ? "the server can't be reached; is audiograft audit still running?" : error.message;
  }

  async function deliver(item) {
    const { entry } = item;
    item.mayHaveArrived = true;
    let verdict;
    try {
      verdict = await Backend.judge(entry);
    } catch (error) {
      if (error.isRefusal) item.mayHaveArrived = false;
      throw error;
    }
    const ofClip = queue.filter((other) => other.entry.rater === entry.rater && other.entry.id === entry.id);
    const position = ofClip.indexOf(item);
    // An earlier one on the same clip, which was refused, is not to come after this one.
    leaveQueue(ofClip.slice(0, position + 1));
    if (entry.rater !== rater) return;
    const waiting = ofClip[position + 1];
    if (waiting) waiting.before = verdict && shown(verdict, false);
    else set(entry.id, verdict && shown(verdict, false));
  }

  const undo = () => inTurn(undoLast);

  // What was undone: {id, before, now}, or null where nothing is left to undo.
  async function undoLast() {
    const last = mine().pop();
    if (last && !last.mayHaveArrived) {
      leaveQueue([last]);
      const before = current.get(last.entry.id);
      set(last.entry.id, last.before);
      if (!queue.length) failure = null;
      changed();
      return { id: last.entry.id, before, now: last.before ?? null };
    }
    undoId ??= Dom.newId();
    let undone;
    try {
      if (last) await deliver(last); // whether it had arrived or not, it has now
      undone = await Backend.undo(rater, undoId);
    } catch (error) {
      throw new Error(reasonOf(error));
    }
    undoId = null;
    const { id, verdict } = undone;
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
