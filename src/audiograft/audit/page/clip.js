"use strict";

// The pane of the current clip: both texts with their differences marked, and what the rater says of them.
const Clip = (() => {
  // By the order of the tags: missing word, wrong word, name, grammar, disfluency, rewritten from context.
  const TAG_KEYS = ["m", "w", "n", "g", "d", "c"];
  // How a word is marked: element, class, and what the legend says of it.
  const OPEN_MARKS = {
    delete: ["del", "delete", "deleted: only in the reference"],
    insert: ["ins", "insert", "inserted: only in the hypothesis"],
    substitute: ["mark", "substitute", "substituted"],
    same: ["span", "same", "differs in capitals or punctuation alone"],
  };
  // Struck out in red or underlined in green would speak for one of two texts of which nobody is to know which is which.
  const BLIND_MARKS = {
    delete: ["mark", "one-sided", "only in one text"],
    insert: ["mark", "one-sided", "only in one text"],
    substitute: ["mark", "substitute", "different words"],
    same: ["span", "same", "differs in capitals or punctuation alone"],
  };
  const corrected = Dom.byId("corrected");
  const note = Dom.byId("note");
  let run = null;
  let clip = null;
  let tags = new Set();
  let silence = null;
  const drafts = new Map();
  let onJudged = () => {};

  const chosen = (verdict) => (run.blind ? verdict.choice : verdict.verdict);
  const labelOf = (verdict) => run.categories.find(({ key }) => key === chosen(verdict))?.label ?? "judged";
  const marks = () => (run.blind ? BLIND_MARKS : OPEN_MARKS);
  const draftKey = (id = clip.id) => `${Verdicts.rater()}\n${id}`;

  function badge(verdict) {
    const state = verdict.unsaved ? "badge not-saved" : "badge";
    return Dom.make("span", { class: state, "data-verdict": chosen(verdict) }, verdict.unsaved ? `${labelOf(verdict)} (not saved)` : labelOf(verdict));
  }

  // One side of a diff, its words in order; each mark has a colour, a line or brackets, and its own element.
  function marked(diff, side) {
    const place = side === "reference" ? 1 : 2;
    const nodes = [];
    for (const edit of diff) {
      const text = edit[place];
      if (!text) continue;
      const [tag, name] = marks()[edit[0]] ?? [];
      nodes.push(tag ? Dom.make(tag, { class: name }, text) : text, " ");
    }
    return nodes;
  }

  function start(ofRun, onVerdict) {
    run = ofRun;
    onJudged = onVerdict;
    run.categories.forEach(({ key, label, hint }, place) => {
      const button = Dom.make("button", { type: "button", "data-choice": key, "aria-pressed": "false", onclick: () => judge(place) });
      button.append(Dom.make("kbd", {}, String(place + 1)), " ", Dom.make("strong", {}, label), Dom.make("small", {}, hint));
      Dom.byId("verdicts").append(button);
    });
    run.tags.forEach((tag, place) => {
      const button = Dom.make("button", { type: "button", "data-tag": tag, "aria-pressed": "false", onclick: () => toggleTag(place) }, tag);
      if (TAG_KEYS[place]) button.append(" ", Dom.make("kbd", {}, TAG_KEYS[place]));
      Dom.byId("tags").append(button);
    });
    const legend = new Map(Object.values(marks()).map((mark) => [mark[1], mark]));
    for (const [tag, name, meaning] of legend.values()) {
      Dom.byId("legend").append(Dom.make("span", {}, Dom.make(tag, { class: name }, "word"), ` ${meaning}`));
    }
    for (const [name, [label]] of Object.entries(sides())) {
      Dom.byId("copies").append(Dom.make("button", { type: "button", onclick: () => copy(name) }, `Start from ${label}`), " ");
    }
    silence = Dom.make("button", { type: "button", id: "silence", "aria-pressed": "false", onclick: toggleSilence }, "Nothing is said ", Dom.make("kbd", {}, "0"));
    Dom.byId("copies").append(silence);
    corrected.addEventListener("change", amend);
    note.addEventListener("change", amend);
    corrected.addEventListener("input", () => showSilence(false));
    for (const field of [corrected, note]) field.addEventListener("input", keepDraft);
  }

  const sides = () => (run.blind ? { x: ["X", "reference"], y: ["Y", "hypothesis"] } : { ref: ["reference", "reference"], hyp: ["hypothesis", "hypothesis"] });

  function copy(name) {
    corrected.value = clip[name];
    showSilence(false);
    keepDraft();
    corrected.focus();
  }

  const isSilence = () => silence.getAttribute("aria-pressed") === "true";

  function showSilence(isOn) {
    silence.setAttribute("aria-pressed", String(isOn));
  }

  function toggleSilence() {
    if (clip === null) return;
    showSilence(!isSilence());
    corrected.value = "";
    keepDraft();
    amend();
    showVerdict();
  }

  function show(next) {
    amend();
    clip = next;
    Dom.byId("clip-title").replaceChildren(Dom.foreign(clip.id));
    showFacts();
    Dom.byId("texts").replaceChildren(...Object.entries(sides()).map(([name, [label, side]]) => text(label, clip[name], side)));
    const suggestion = Dom.byId("suggestion");
    suggestion.hidden = !clip.reasons?.length;
    if (!suggestion.hidden) suggestion.replaceChildren(Dom.make("strong", {}, `Suggested: look at the label, number ${clip.rank} by suspicion`), `, because ${clip.reasons.join("; ")}. A hint of a program, no verdict.`);
    showVerdict();
  }

  function text(label, whole, side) {
    const body = whole.trim() ? marked(clip.diff, side) : [Dom.make("span", { class: "quiet" }, "(empty)")];
    return Dom.make("div", { class: "text" }, Dom.make("h3", {}, label), Dom.make("p", { dir: "auto", "data-side": label }, ...body));
  }

  function showFacts() {
    const facts = [run.blind ? `distance of X and Y ${Dom.percent(clip.wer)}` : `WER ${Dom.percent(clip.wer)}`];
    if (Dom.known(clip.words)) facts[0] += ` of ${Dom.counted(clip.words, "word")}`;
    if (clip.kind) facts.push(clip.kind);
    if (Dom.known(clip.conf)) facts.push(`confidence ${clip.conf.toFixed(2)}`);
    facts.push(Dom.seconds(clip.dur));
    const nodes = facts.map((fact) => Dom.make("span", {}, fact));
    if (clip.speaker) nodes.push(Dom.make("span", {}, "speaker ", Dom.foreign(clip.speaker)));
    if (clip.source) nodes.push(Dom.make("span", {}, "from ", Dom.foreign(clip.source)));
    Dom.byId("facts").replaceChildren(...nodes);
  }

  function showVerdict() {
    const verdict = Verdicts.of(clip.id);
    const given = drafts.get(draftKey()) ?? verdict;
    tags = new Set(given?.tags ?? []);
    corrected.value = given?.corrected ?? "";
    showSilence(given?.corrected === "");
    note.value = given?.note ?? "";
    for (const button of Dom.byId("verdicts").children) button.setAttribute("aria-pressed", String(Boolean(verdict) && chosen(verdict) === button.dataset.choice));
    showTags();
    const state = Dom.byId("verdict-state");
    state.classList.toggle("failure", Boolean(verdict?.unsaved));
    if (verdict?.unsaved) state.textContent = `${labelOf(verdict)}: not saved yet`;
    else if (verdict) state.textContent = `${labelOf(verdict)}: saved`;
    else state.textContent = drafts.has(draftKey()) ? "Tags, text and note are saved with the verdict: choose one." : "Not judged yet.";
  }

  function showTags() {
    for (const button of Dom.byId("tags").children) button.setAttribute("aria-pressed", String(tags.has(button.dataset.tag)));
  }

  const given = () => ({ corrected: corrected.value.trim() || (isSilence() ? "" : null), tags: run.tags.filter((tag) => tags.has(tag)), note: note.value.trim() || null });

  function keepDraft() {
    drafts.set(draftKey(), given());
  }

  // What was typed for a verdict that was undone waits for the next one. Where an earlier verdict stands again, its own text does: a draft would be
  // saved with it as the page moves on, and undo the undo.
  function restoreDraft({ id, before, now }) {
    drafts.delete(draftKey(id));
    if (now || !before) return;
    const { corrected: text = null, tags: its = [], note: remark = null } = before;
    if (text !== null || its.length || remark) drafts.set(draftKey(id), { corrected: text, tags: its, note: remark });
  }

  function judge(place) {
    const choice = run.categories[place]?.key;
    if (clip === null || !choice) return;
    if (clip.x === clip.y && ["x", "y"].includes(choice)) {
      Dom.toast("X and Y are the same, so that neither alone can be right: choose another verdict.");
      return;
    }
    send({ [run.blind ? "choice" : "verdict"]: choice });
    onJudged(clip.id);
  }

  function send(choice) {
    const id = clip.id;
    const entry = { ...choice, ...given() };
    drafts.delete(draftKey());
    Verdicts.judge(id, entry);
  }

  // Tags, text and note of a clip that has a verdict are saved with it again; before it has one they wait for it.
  function amend() {
    const verdict = clip && Verdicts.of(clip.id);
    if (!verdict || !drafts.has(draftKey())) return;
    const before = { corrected: verdict.corrected ?? null, tags: verdict.tags, note: verdict.note ?? null };
    if (JSON.stringify(before) === JSON.stringify(given())) drafts.delete(draftKey());
    else send({ [run.blind ? "choice" : "verdict"]: chosen(verdict) });
  }

  function toggleTag(place) {
    const tag = run.tags[place];
    if (clip === null || tag === undefined) return;
    if (!tags.delete(tag)) tags.add(tag);
    showTags();
    keepDraft();
    amend();
    showVerdict();
  }

  return {
    chosen, labelOf, badge, marked, start, show, judge, amend, toggleTag, toggleSilence, restoreDraft, TAG_KEYS,
    refresh: () => { if (clip) showVerdict(); },
    leave: () => { if (clip) amend(); clip = null; },
  };
})();
