"use strict";

// Results and error patterns: what the verdicts say, in tables that also say how sure they are.
const Results = (() => {
  let run = null;
  let open = () => {};

  function start(ofRun, onOpen) {
    run = ofRun;
    open = onOpen;
  }

  const labelOf = (key) => run.categories.find((category) => category.key === key)?.label ?? key;
  const heading = (text) => Dom.make("h2", {}, text);
  const remark = (text) => Dom.make("p", { class: "quiet" }, text);
  const figure = (text) => Dom.make("td", { class: "figure" }, text);
  const number = (value) => (Dom.known(value) ? value.toFixed(2) : "none");
  const range = (low, high, show) => (Dom.known(low) && Dom.known(high) ? `${show(low)} to ${show(high)}` : "not known");

  function table(caption, titles, lines) {
    const isFigure = (place) => lines[0]?.children[place]?.classList.contains("figure");
    const head = titles.map((title, place) => Dom.make("th", { scope: "col", class: isFigure(place) && "figure" }, title));
    return Dom.make(
      "div",
      { class: "scroll" },
      Dom.make("table", {}, Dom.make("caption", {}, caption), Dom.make("thead", {}, Dom.make("tr", {}, ...head)), Dom.make("tbody", {}, ...lines)),
    );
  }

  const line = (title, ...cells) => Dom.make("tr", {}, Dom.make("th", { scope: "row" }, title), ...cells);

  function jump(id) {
    if (!List.has(id)) return Dom.foreign(id);
    return Dom.make("button", { type: "button", class: "jump", onclick: () => open(id) }, Dom.foreign(id));
  }

  const jumps = (ids) => ids.flatMap((id) => [jump(id), " "]);

  async function fill(page, fetched, draw) {
    page.replaceChildren(remark("Counting …"));
    try {
      const answer = await fetched();
      page.replaceChildren(...(answer ? draw(answer) : [remark("This page was written without results.")]));
    } catch (error) {
      page.replaceChildren(Dom.make("p", { class: "failure" }, `Nothing to show: ${error.message}`));
    }
  }

  const show = (page) => fill(page, Backend.results, drawResults);
  const showPatterns = (page) => fill(page, Backend.patterns, drawPatterns);

  function drawResults(results) {
    return [
      ...overview(results),
      ...wordErrors(results.wer, results.normaliser),
      ...agreement(results.agreement),
      ...disagreements(results.disagreements),
      ...raters(results),
      ...tags(results.tags),
      ...suggestions(results.suggestions),
      ...files(),
    ];
  }

  const SCOPES = {
    all: "All clips of the run are judged: the shares are those of the run.",
    sample: "A sample drawn at random is judged to its end: the shares speak for the run, within their intervals.",
    unsettled: "Judged to the end, but raters are tied on some clips: the shares leave these out, and speak for the run once they are settled.",
    part: "Not all clips are judged: the shares speak for the judged ones alone, since raters chose where to begin.",
  };

  function overview({ clips, scope, sample, pooled, outside }) {
    const parts = [heading("What the verdicts say")];
    if (Backend.isStatic) parts.push(remark("As of when this page was written: verdicts given in it since are not counted here."));
    const drawn = sample ? `${Dom.whole(clips.sample)} clips, drawn from ${Dom.whole(clips.run)} with seed ${sample.seed},` : Dom.counted(clips.run, "clip");
    parts.push(Dom.make("p", {}, `${Dom.whole(clips.judged)} of ${drawn} judged. ${SCOPES[scope] ?? ""}`));
    if (clips.failed) parts.push(remark(`${Dom.counted(clips.failed, "row")} without a hypothesis can't be judged.`));
    if (outside) parts.push(remark(`${Dom.counted(outside, "verdict")} on clips outside this sample left out.`));
    parts.push(shares("One vote a clip, the category with the most raters", pooled));
    if (pooled.ties.length) parts.push(Dom.make("p", {}, `Without a majority, in no share: ${Dom.counted(pooled.ties.length, "clip")}. `, ...jumps(pooled.ties)));
    parts.push(remark("Shares of clips, each rounded by itself, with 95 % Wilson intervals. A share of clips with an error is not a word error rate."));
    return parts;
  }

  function shares(caption, { categories }) {
    const lines = Object.entries(categories).map(([key, { clips, share, percent, low, high }]) =>
      line(
        labelOf(key),
        Dom.make("td", {}, meter(share, low, high)),
        figure(Dom.known(clips) ? Dom.whole(clips) : ""),
        figure(Dom.known(percent) ? `${percent.toFixed(1)} %` : Dom.percent(share)),
        figure(range(low, high, Dom.percent)),
      ),
    );
    return table(caption, ["category", "share and interval", "clips", "share", "95 % interval"], lines);
  }

  function meter(share, low, high) {
    const node = Dom.make("div", { class: "meter", "aria-hidden": "true" });
    if (!Dom.known(share)) return node;
    const bar = Dom.make("div", { class: "share" });
    bar.style.width = `${100 * share}%`;
    const whisker = Dom.make("div", { class: "range" });
    whisker.style.left = `${100 * low}%`;
    whisker.style.width = `${100 * (high - low)}%`;
    node.append(bar, whisker);
    return node;
  }

  function wordErrors(wer, normaliser) {
    const parts = [heading("Word error rate on the judged clips")];
    if (!wer.original) return [...parts, remark("None yet: no judged clip has a settled label.")];
    const rows = [["original labels", wer.original], ["corrected labels", wer.corrected]].map(([title, rate]) =>
      line(title, figure(Dom.percent(rate.rate)), figure(range(rate.interval?.low, rate.interval?.high, Dom.percent)), figure(Dom.whole(rate.substitutions)),
        figure(Dom.whole(rate.deletions)), figure(Dom.whole(rate.insertions)), figure(Dom.whole(rate.reference_length))));
    const caption = `The same ${Dom.counted(wer.clips, "clip")}, normaliser ${normaliser.name} ${normaliser.version}`;
    parts.push(table(caption, ["against", "WER", "95 % interval", "substituted", "deleted", "inserted", "words"], rows));
    parts.push(remark(`Labels typed by raters: ${wer.typed}. The model's text taken as the label, which leaves it no errors: ${wer.hypothesis_as_label}. Kept as they were: ${wer.kept}, of these ambiguous: ${wer.ambiguous_kept}.`));
    const { tied, texts_differ: differ, answers } = wer.left_out;
    if (tied.length) parts.push(Dom.make("p", {}, "In neither rate, since raters are tied: ", ...jumps(tied)));
    if (differ.length) parts.push(Dom.make("p", {}, "In neither rate, since raters typed different texts: ", ...jumps(differ)));
    if (answers) parts.push(remark(`In neither rate, being answers to questions: ${Dom.counted(answers, "clip")}.`));
    return parts;
  }

  function agreement({ pairs, fleiss }) {
    const parts = [heading("Agreement between raters")];
    if (!pairs.length) return [...parts, remark("One rater so far: agreement needs two on the same clips.")];
    const rows = pairs.map((pair) =>
      line(Dom.make("span", {}, Dom.foreign(pair.raters[0]), " and ", Dom.foreign(pair.raters[1])), figure(Dom.whole(pair.clips)), figure(pair.clips ? Dom.whole(pair.agreed) : ""),
        figure(number(pair.kappa)), Dom.make("td", {}, pair.reason ?? range(pair.low, pair.high, number)), figure(pair.clips && pair.both_blind ? Dom.whole(pair.both_blind) : "")));
    parts.push(table("Cohen's kappa on the clips that both judged", ["raters", "clips", "agreed", "kappa", "95 % interval", "both blind"], rows));
    if (fleiss) {
      const value = Dom.known(fleiss.kappa) ? `${number(fleiss.kappa)} (${range(fleiss.low, fleiss.high, number)})` : `none, ${fleiss.reason}`;
      parts.push(Dom.make("p", {}, `Fleiss' kappa of all ${fleiss.raters} raters on ${Dom.counted(fleiss.clips, "clip")}: ${value}.`));
    }
    return parts;
  }

  function disagreements(list) {
    const parts = [heading("Disagreements to settle")];
    if (!list.length) return [...parts, remark("None.")];
    const rows = list.map(({ id, verdicts, tied }) => {
      const votes = Object.entries(verdicts).flatMap(([rater, key], place) => [place ? "; " : "", Dom.foreign(rater), `: ${labelOf(key)}`]);
      return line(jump(id), Dom.make("td", {}, ...votes), Dom.make("td", {}, tied ? "tied: counted nowhere" : "outvoted"));
    });
    return [...parts, table("Clips on which raters differ. Talk them over, and change a verdict where one was wrong.", ["clip", "verdicts", "state"], rows)];
  }

  function raters({ raters: tables, blind, open: seen }) {
    const names = Object.keys(tables);
    if (!names.length) return [];
    const parts = [heading("Rater by rater")];
    for (const name of names) {
      const { clips, blind: n_blind, seconds_a_clip: pace_s } = tables[name];
      const pace = Dom.known(pace_s) ? `, ${pace_s.toFixed(0)} s a clip in the median` : "";
      parts.push(Dom.make("h3", {}, Dom.foreign(name)), shares(`${Dom.counted(clips, "clip")}, ${Dom.whole(n_blind)} of them blind${pace}`, tables[name]));
    }
    if (blind.clips && seen.clips) {
      parts.push(Dom.make("h3", {}, "Blind and open"), shares(`${Dom.counted(blind.clips, "verdict")} given blind`, blind));
      parts.push(shares(`${Dom.counted(seen.clips, "verdict")} given with sight of which text is the label`, seen));
    }
    return parts;
  }

  function tags(counts) {
    const rows = Object.entries(counts).map(([tag, clips]) => line(tag, figure(Dom.whole(clips))));
    return rows.length ? [heading("Tags"), table("Clips that carry a tag by any rater", ["tag", "clips"], rows)] : [];
  }

  function suggestions(quality) {
    if (!quality?.judged) return [];
    const rate = (value) => figure(value ? `${Dom.percent(value.rate)} (${range(value.low, value.high, Dom.percent)})` : "none");
    const rows = Object.entries(quality.at).map(([first, cut]) => line(`first ${first}`, figure(Dom.whole(cut.judged)), figure(Dom.whole(cut.right)), rate(cut.precision), rate(cut.recall)));
    const caption = `Against ${Dom.counted(quality.judged, "judged clip")}, ${Dom.whole(quality.label_noise)} of them label noise`;
    const parts = [heading("How good the suggestions were"), table(caption, ["suggestions", "judged", "label noise", "precision", "recall"], rows)];
    const average = Dom.known(quality.average_precision) ? `Average precision ${quality.average_precision.toFixed(2)}; a random order reaches ${quality.chance.toFixed(2)}. ` : "";
    parts.push(remark(`${average}${Dom.whole(quality.blind)} of the judged clips were judged blind: verdicts given with the suggestions in sight may follow them.`));
    return parts;
  }

  function files() {
    if (Backend.isStatic) return [];
    const link = (name, text) => Dom.make("a", { href: `/api/${name}`, download: name }, text);
    return [heading("Verdicts as a file"), Dom.make("p", {}, link("verdicts.csv", "CSV, for a spreadsheet"), " · ", link("verdicts.jsonl", "JSONL, for --import"))];
  }

  const PATTERNS = {
    substitutions: "Words taken for others",
    deletions: "Words left out",
    insertions: "Words put in",
    compounds: "Written as one word or two",
  };

  function drawPatterns(patterns) {
    const parts = [remark("Words that go wrong most often, over all clips of this page, and clips in which they do.")];
    for (const [kind, title] of Object.entries(PATTERNS)) {
      const entries = patterns[kind] ?? [];
      parts.push(heading(title), entries.length ? table(counted(entries, patterns.totals[kind]), ["reference → hypothesis", "times", "clips"], entries.map(pattern)) : remark("None."));
    }
    return parts;
  }

  function counted(entries, total) {
    return `${Dom.counted(entries.length, "pattern")}, the commonest first; ${Dom.counted(total, "such error")} in all`;
  }

  function pattern({ reference, hypothesis, count, ids }) {
    const side = (text, tag) => (text ? Dom.make(tag, {}, text) : Dom.make("span", { class: "quiet" }, "nothing"));
    const tag = reference && hypothesis ? "mark" : reference ? "del" : "ins";
    return line(Dom.make("span", {}, side(reference, tag), " → ", side(hypothesis, tag)), figure(Dom.whole(count)), Dom.make("td", {}, ...jumps(ids)));
  }

  return { start, show, showPatterns };
})();
