"use strict";

// The list of clips: search, filters, order, and only those rows as elements that can be seen, so that 10,000 clips cost what 20 do.
const List = (() => {
  const ROW_PX = 84;
  const SPARE_ROWS = 4;
  const MAX_SPEAKERS = 500;
  const MAX_SNIPPET_EDITS = 30;
  const NUMBERS = ["wer-low", "wer-high", "length-low", "length-high"];
  const list = Dom.byId("list");
  const rows = Dom.byId("rows");
  let clips = [];
  let byClipId = new Map();
  let view = [];
  let places = new Map();
  let currentId = null;
  let lastPlace = 0;
  let run = null;
  let choose = () => {};
  let viewChanged = () => {};

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  // Clips without the figure come last, whichever way it goes.
  function by(figure, sign) {
    return (a, b) => {
      const [x, y] = [a[figure] ?? null, b[figure] ?? null];
      if (x === null || y === null) return (x === null) - (y === null) || a.i - b.i;
      return sign * compare(x, y) || a.i - b.i;
    };
  }

  const ORDERS = {
    file: ["as in the file", (a, b) => a.i - b.i],
    "wer-down": ["WER, highest first", by("wer", -1)],
    "wer-up": ["WER, lowest first", by("wer", 1)],
    "length-down": ["length, longest first", by("dur", -1)],
    "length-up": ["length, shortest first", by("dur", 1)],
    speaker: ["speaker", by("speaker", 1)],
    kind: ["kind of match", by("kind", 1)],
    confidence: ["confidence, lowest first", by("conf", 1)],
    suspicion: ["suspicion, highest first", by("suspicion", -1)],
  };

  function start(ofRun, onChoose, onView) {
    run = ofRun;
    choose = onChoose;
    viewChanged = onView;
    const hidden = [...(run.blind ? ["kind", "confidence", "suspicion"] : []), ...(run.has_suggestions ? [] : ["suspicion"])];
    for (const [name, [label]] of Object.entries(ORDERS)) {
      const text = run.blind ? label.replace("WER", "distance of X and Y") : label;
      if (!hidden.includes(name)) Dom.byId("sort").append(Dom.make("option", { value: name }, text));
    }
    const states = [["", "all"], ["open", "not judged"], ["judged", "judged"], ...run.categories.map(({ key, label }) => [key, label])];
    Dom.byId("state").append(...states.map(([value, label]) => Dom.make("option", { value }, label)));
    if (run.blind) {
      Dom.byId("label-kind").hidden = true;
      Dom.byId("legend-wer").textContent = "Distance of X and Y in %";
    }
    const notes = [...(run.sample ? [`${Dom.whole(run.sample.n)} clips drawn from ${Dom.whole(run.sample.of)}`] : []), ...(run.notes ?? [])];
    Dom.byId("notes").hidden = !notes.length;
    Dom.byId("notes-count").textContent = `${Dom.counted(notes.length, "note")} on this run`;
    Dom.byId("notes").append(...notes.map((note) => Dom.make("p", {}, note)));
    const filters = Dom.byId("filters");
    filters.addEventListener("input", narrow);
    filters.addEventListener("submit", (event) => { event.preventDefault(); });
    Dom.byId("clear").addEventListener("click", clear);
    list.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    new ResizeObserver(draw).observe(list);
    rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) choose(view[Number(row.dataset.place)].id);
    });
  }

  function fill(ofClips) {
    clips = ofClips;
    [currentId, lastPlace] = [null, 0];
    byClipId = new Map(clips.map((clip) => [clip.id, clip]));
    for (const clip of clips) clip.haystack = [clip.id, clip.ref, clip.hyp, clip.x, clip.y, clip.speaker, clip.source].filter(Boolean).join("\n").toLowerCase();
    const speakers = [...new Set(clips.map((clip) => clip.speaker).filter(Boolean))].sort();
    Dom.byId("speakers").replaceChildren(...speakers.slice(0, MAX_SPEAKERS).map((speaker) => Dom.make("option", { value: speaker })));
    refresh();
  }

  function wanted() {
    const number = (id) => (Dom.byId(id).value === "" ? null : Number(Dom.byId(id).value));
    const [werLow, werHigh, lengthLow, lengthHigh] = NUMBERS.map(number);
    const text = (id) => Dom.byId(id).value.trim().toLowerCase();
    return { words: text("search"), speaker: text("speaker"), kind: Dom.byId("kind").value, state: Dom.byId("state").value, werLow, werHigh, lengthLow, lengthHigh };
  }

  function within(value, low, high, scale) {
    if (low === null && high === null) return true;
    if (!Dom.known(value)) return false;
    // Shown figures are rounded to a tenth: what reads 12.5 is to be found from 12.5 to 12.5.
    const rounded = Math.round(10 * scale * value) / 10;
    return (low === null || rounded >= low) && (high === null || rounded <= high);
  }

  function inState(clip, state) {
    if (state === "") return true;
    const verdict = Verdicts.of(clip.id);
    if (state === "open") return !verdict;
    return Boolean(verdict) && (state === "judged" || Clip.chosen(verdict) === state);
  }

  function found(clip, words) {
    return !words || clip.haystack.includes(words) || Boolean(Verdicts.of(clip.id)?.note?.toLowerCase().includes(words));
  }

  function matches(clip, want) {
    return (
      found(clip, want.words) &&
      (!want.kind || clip.kind === want.kind) &&
      (!want.speaker || (clip.speaker ?? "").toLowerCase().includes(want.speaker)) &&
      within(clip.wer, want.werLow, want.werHigh, 100) &&
      within(clip.dur, want.lengthLow, want.lengthHigh, 1) &&
      inState(clip, want.state)
    );
  }

  function refresh() {
    const began = performance.now();
    const want = wanted();
    view = clips.filter((clip) => matches(clip, want)).sort(ORDERS[Dom.byId("sort").value][1]);
    places = new Map(view.map((clip, place) => [clip.id, place]));
    Dom.byId("found").textContent = view.length === clips.length ? Dom.counted(clips.length, "clip") : `${Dom.whole(view.length)} of ${Dom.counted(clips.length, "clip")}`;
    Dom.byId("clear").hidden = view.length === clips.length;
    rows.style.height = `${view.length * ROW_PX}px`;
    reveal();
    draw();
    viewChanged();
    performance.measure("audit-filter", { start: began });
  }

  // Another order begins at its first clip, and so does a filter that leaves the current one out.
  function narrow(event) {
    refresh();
    if (event.target.id === "sort" || !places.has(currentId)) list.scrollTop = 0;
    draw();
  }

  function clear() {
    const order = Dom.byId("sort").value;
    Dom.byId("filters").reset();
    Dom.byId("sort").value = order;
    refresh();
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - SPARE_ROWS);
    const last = Math.min(view.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + SPARE_ROWS);
    rows.replaceChildren(...view.slice(first, last).map((clip, offset) => row(clip, first + offset)));
    if (places.has(currentId)) list.setAttribute("aria-activedescendant", `row-${byClipId.get(currentId).i}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(clip, place) {
    const verdict = Verdicts.of(clip.id);
    const node = Dom.make(
      "div",
      { class: "row", role: "option", id: `row-${clip.i}`, "data-place": place, "aria-selected": String(clip.id === currentId), "aria-posinset": place + 1, "aria-setsize": view.length },
      Dom.make("div", { class: "row-head" }, Dom.foreign(clip.id, { class: "row-id" }), Dom.make("span", { class: "quiet" }, figures(clip)), clip.reasons?.length ? Dom.make("span", { class: "hint" }, `hint ${clip.rank}`) : null, verdict ? Clip.badge(verdict) : null),
      Dom.make("div", { class: "snippet", dir: "auto" }, ...snippet(clip, "reference")),
      Dom.make("div", { class: "snippet", dir: "auto" }, ...snippet(clip, "hypothesis")),
    );
    node.style.transform = `translateY(${place * ROW_PX}px)`;
    return node;
  }

  function figures(clip) {
    return [Dom.percent(clip.wer), Dom.seconds(clip.dur), clip.kind].filter(Boolean).join(" · ");
  }

  // A few words before the first difference are enough to know where one is.
  function snippet(clip, side) {
    const first = Math.max(0, clip.diff.findIndex(([kind]) => kind !== "equal") - 4);
    const marked = Clip.marked(clip.diff.slice(first, first + MAX_SNIPPET_EDITS), side);
    return first > 0 ? ["… ", ...marked] : marked;
  }

  // Scroll so that the current row can be seen.
  function reveal() {
    const place = places.get(currentId);
    if (place === undefined) return;
    const top = place * ROW_PX;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
  }

  function select(id) {
    currentId = id;
    lastPlace = places.get(id) ?? lastPlace;
    reveal();
    draw();
  }

  // The clip so many places on; where the current one has left the view, its place is what counts.
  function neighbour(step) {
    if (!view.length) return null;
    const place = places.get(currentId);
    const next = place === undefined ? lastPlace + (step > 0 ? step - 1 : step) : place + step;
    return view[Math.min(Math.max(next, 0), view.length - 1)].id;
  }

  function nextOpen() {
    const from = places.get(currentId) ?? lastPlace - 1;
    const ahead = [...view.slice(from + 1), ...view.slice(0, Math.max(from, 0))];
    return ahead.find((clip) => !Verdicts.of(clip.id))?.id ?? null;
  }

  return {
    start, fill, refresh, select, neighbour, nextOpen,
    has: (id) => byClipId.has(id),
    get: (id) => byClipId.get(id),
    place: () => (places.has(currentId) ? places.get(currentId) + 1 : null),
    size: () => view.length,
    pageRows: () => Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1),
    total: () => clips.length,
  };
})();
