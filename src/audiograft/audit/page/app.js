"use strict";

// Start, keys, tabs, raters: what holds the parts together.
(() => {
  const SKIP_S = 1;
  const TABS = ["clips", "results", "patterns"];
  const NARROW = matchMedia("(max-width: 800px)");
  let run = null;

  function showUnsaved() {
    const { count, failure } = Verdicts.unsaved();
    Dom.byId("unsaved").hidden = failure === null;
    if (failure === null) return;
    Dom.byId("unsaved-text").replaceChildren(`${Dom.counted(count, "verdict")} not saved: `, Dom.foreign(failure), ". Kept here, and tried again by itself.");
  }

  function showProgress() {
    const [done, all] = [Verdicts.count(), List.total()];
    Dom.byId("progress-text").textContent = `${Dom.whole(done)} of ${Dom.whole(all)} judged`;
    Dom.byId("progress-bar").max = Math.max(all, 1);
    Dom.byId("progress-bar").value = done;
  }

  function verdictsChanged() {
    showUnsaved();
    showProgress();
    Clip.refresh();
    List.refresh();
  }

  function open(id, isArrival = true) {
    showTab("clips");
    goTo(id, isArrival);
  }

  function goTo(id, isArrival = true) {
    if (id === null || !List.has(id)) return;
    List.select(id);
    Clip.show(List.get(id));
    Player.show(List.get(id), isArrival && Dom.byId("autoplay").checked);
    showPlace();
    if (isArrival) document.body.classList.add("in-clip");
  }

  function showPlace() {
    const place = List.place();
    Dom.byId("clip-place").textContent = place === null ? "not in this list" : `${Dom.whole(place)} of ${Dom.whole(List.size())}`;
  }

  function judged(id) {
    if (!Dom.byId("advance").checked) return;
    const next = List.nextOpen();
    if (next === null || next === id) Dom.toast("All clips of this list are judged.");
    else goTo(next);
  }

  async function undo() {
    let undone;
    try {
      undone = await Verdicts.undo();
    } catch (error) {
      Dom.toast(`Nothing was undone: ${error.message}`);
      return;
    }
    if (undone === null) {
      Dom.toast("Nothing left to undo.");
      return;
    }
    Dom.toast("Undone: ", ...told(undone));
    Clip.restoreDraft(undone);
    Clip.leave();
    goTo(undone.id);
  }

  function told({ id, before, now }) {
    const was = before ? `“${Clip.labelOf(before)}”` : "a verdict";
    if (!now) return [`${was} on `, Dom.foreign(id), "; it is not judged now."];
    const isSame = before && Clip.chosen(before) === Clip.chosen(now);
    if (isSame) return ["what was changed on ", Dom.foreign(id), `; its tags, text and note are as before, ${was} stands.`];
    return [`${was} on `, Dom.foreign(id), `; it is “${Clip.labelOf(now)}” again.`];
  }

  function step(count) {
    goTo(List.neighbour(count));
  }

  function toList() {
    document.body.classList.remove("in-clip");
    Dom.byId("list").focus();
  }

  function focusField(id) {
    if (id === "search") document.body.classList.remove("in-clip");
    Dom.byId(id).focus();
  }

  function showTab(name) {
    for (const tab of TABS) {
      const isOpen = tab === name;
      Dom.byId(`page-${tab}`).hidden = !isOpen;
      Dom.byId(`tab-${tab}`).setAttribute("aria-selected", String(isOpen));
      Dom.byId(`tab-${tab}`).tabIndex = isOpen ? 0 : -1;
    }
    if (name === "results") Results.show(Dom.byId("page-results"));
    if (name === "patterns") Results.showPatterns(Dom.byId("page-patterns"));
  }

  // [keys, what they do, action]; the help page is written from this list.
  const KEYS = [
    [[" "], "play or pause", () => Player.toggle()],
    [["ArrowLeft"], "one second back", () => Player.skip(-SKIP_S)],
    [["ArrowRight"], "one second on", () => Player.skip(SKIP_S)],
    [[","], "slower", () => Player.changeSpeed(-1)],
    [["."], "faster", () => Player.changeSpeed(1)],
    [["j", "ArrowDown"], "next clip", () => step(1)],
    [["k", "ArrowUp"], "previous clip", () => step(-1)],
    [["PageDown"], "a page of clips on", () => step(List.pageRows())],
    [["PageUp"], "a page of clips back", () => step(-List.pageRows())],
    [["Home"], "first clip", () => step(-List.total())],
    [["End"], "last clip", () => step(List.total())],
    [["1", "2", "3", "4", "5"], "verdict", (key) => Clip.judge(Number(key) - 1)],
    [["0"], "nothing is said in the clip", () => Clip.toggleSilence()],
    [Clip.TAG_KEYS, "tags, in the order of the buttons", (key) => Clip.toggleTag(Clip.TAG_KEYS.indexOf(key))],
    [["u"], "undo the last verdict", undo],
    [["e"], "type what is said", () => focusField("corrected")],
    [["t"], "type a note", () => focusField("note")],
    [["/"], "search", () => focusField("search")],
    [["Escape"], "leave a field; on a phone: back to the list", toList],
    [["?"], "this page", () => Dom.byId("help-dialog").showModal()],
  ];
  const ACTIONS = new Map(KEYS.flatMap(([keys, , action]) => keys.map((key) => [key, action])));
  const REPEATED = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "j", "k"]);
  const KEY_NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc" };
  // Elements that have a use of their own for some keys.
  const OWN_KEYS = { BUTTON: [" "], SUMMARY: [" "], SELECT: [" ", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"] };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) {
      if (event.key === "Enter" && event.ctrlKey) leaveField(event);
      return;
    }
    const { target } = event;
    if (target.matches("input:not([type=checkbox]), textarea")) {
      if (event.key === "Escape" || (event.key === "Enter" && target.closest("#filters"))) leaveField(event);
      return;
    }
    if (target.matches("[role=tab]") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      turnTab(event.key === "ArrowRight" ? 1 : -1);
      return;
    }
    if (OWN_KEYS[target.tagName]?.includes(event.key) || (target.type === "checkbox" && event.key === " ")) return;
    if (Dom.byId("page-clips").hidden && !["?"].includes(event.key)) return;
    const action = ACTIONS.get(event.key);
    if (!action) return;
    event.preventDefault();
    // A key that is held down moves on and on, and judges once.
    if (!event.repeat || REPEATED.has(event.key)) action(event.key);
  }

  function leaveField(event) {
    if (!event.target.matches("input, textarea")) return;
    event.preventDefault();
    event.target.blur();
    Dom.byId(event.target.closest(".side") ? "list" : "clip-title").focus();
  }

  function turnTab(direction) {
    const tabs = TABS.filter((tab) => !Dom.byId(`tab-${tab}`).hidden);
    const now = tabs.findIndex((tab) => !Dom.byId(`page-${tab}`).hidden);
    const next = tabs[(now + direction + tabs.length) % tabs.length];
    showTab(next);
    Dom.byId(`tab-${next}`).focus();
  }

  function writeHelp() {
    for (const [keys, what] of KEYS) {
      const names = keys.flatMap((key) => [Dom.make("kbd", {}, KEY_NAMES[key] ?? key), " "]);
      Dom.byId("keys").append(Dom.make("tr", {}, Dom.make("th", { scope: "row" }, ...names), Dom.make("td", {}, what)));
    }
  }

  // Name of the rater: the one the page was opened for, else the one of last time, else asked.
  async function enter(name) {
    Dom.byId("rater").textContent = name;
    if (!Backend.fixedRater) Dom.remember("rater", name);
    Clip.leave();
    const [clips, raters] = await Promise.all([Backend.clips(name), Verdicts.load(name)]);
    Dom.byId("raters").replaceChildren(...raters.map((rater) => Dom.make("option", { value: rater })));
    List.fill(clips);
    showProgress();
    showUnsaved();
    goTo(List.nextOpen() ?? List.neighbour(0), false);
  }

  // Characters that can't be seen are no part of a name: the log takes none.
  const asName = (text) => text.normalize("NFC").replace(/\p{Z}+/gu, " ").replace(/\p{C}/gu, "").trim();

  function askRater() {
    const dialog = Dom.byId("rater-dialog");
    Dom.byId("rater-name").value = Verdicts.rater();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(asName(Dom.byId("rater-name").value)), { once: true });
      dialog.showModal();
    });
  }

  async function changeRater() {
    const before = Verdicts.rater();
    const name = await askRater();
    if (name && name !== before) await enter(name);
  }

  function wire() {
    Player.start();
    Clip.start(run, judged);
    List.start(run, goTo, showPlace);
    Verdicts.start(run, verdictsChanged);
    Results.start(run, open);
    document.addEventListener("keydown", onKey);
    // The last moment that a browser, above all a phone's, surely gives to a page that is closed.
    document.addEventListener("visibilitychange", () => { if (document.hidden) Clip.amend(); });
    // After a click the keys belong to the page again: space must not press the same button once more.
    document.addEventListener("click", (event) => {
      const button = event.target.closest("main button");
      if (button && event.detail > 0 && !button.closest("#copies") && !NARROW.matches) Dom.byId("clip-title").focus({ preventScroll: true });
    });
    const clicks = { previous: () => step(-1), next: () => step(1), undo, "to-list": toList, retry: () => Verdicts.send(), rater: changeRater, help: () => Dom.byId("help-dialog").showModal() };
    for (const [id, action] of Object.entries(clicks)) Dom.byId(id).addEventListener("click", () => action());
    for (const tab of TABS) Dom.byId(`tab-${tab}`).addEventListener("click", () => showTab(tab));
    for (const id of ["advance", "autoplay"]) {
      Dom.byId(id).checked = Dom.remembered(id, id === "advance");
      Dom.byId(id).addEventListener("change", (event) => Dom.remember(id, event.target.checked));
    }
  }

  function showRun() {
    document.title = `${run.name} · audiograft audit`;
    Dom.byId("run-name").replaceChildren(Dom.foreign(run.name));
    Dom.byId("run-name").title = `fingerprint ${run.fingerprint}`;
    Dom.byId("blind-mark").hidden = !run.blind;
    if (run.normalised) Dom.byId("blind-mark").textContent = "blind, normalised";
    Dom.byId("tab-results").hidden = run.blind;
    Dom.byId("tab-patterns").hidden = run.blind;
    Dom.byId("rater").disabled = Backend.fixedRater !== null;
    Dom.byId("download").hidden = !Backend.isStatic;
    if (Backend.isStatic) Dom.byId("download").addEventListener("click", Backend.download);
    writeHelp();
  }

  async function main() {
    run = await Backend.run();
    wire();
    showRun();
    let name = (Backend.fixedRater ?? run.rater) || Dom.remembered("rater", "");
    while (!name) name = await askRater();
    await enter(name);
    requestAnimationFrame(() => setTimeout(() => performance.measure("audit-first-paint", { start: 0 })));
  }

  main().catch((error) => {
    Dom.byId("unsaved").hidden = false;
    Dom.byId("unsaved-text").textContent = `The page could not be filled: ${error.message}`;
  });
})();
