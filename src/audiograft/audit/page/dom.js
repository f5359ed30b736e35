"use strict";

// Elements and figures as text. Whatever comes from a run goes through text nodes or attributes that hold plain text, never through HTML.
const Dom = (() => {
  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "onclick") node.addEventListener("click", value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  // Text of a run: set apart, so that writing from right to left, or a mark that turns the direction, stays within it.
  const foreign = (text, attributes = {}) => make("bdi", attributes, text);

  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const percent = (share) => (known(share) ? `${(100 * share).toFixed(1)} %` : "not known");
  const seconds = (value) => (known(value) ? `${value.toFixed(1)} s` : "length not known");
  const whole = (number) => number.toLocaleString("en");
  const counted = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;

  function clock(time) {
    const tenths = Math.max(0, Math.round(10 * time));
    return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
  }

  // Settings of the browser: where it keeps none, what was chosen holds until the page is closed.
  function remember(name, value) {
    try {
      localStorage.setItem(`audiograft-audit/${name}`, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }

  function remembered(name, otherwise) {
    try {
      const text = localStorage.getItem(`audiograft-audit/${name}`);
      return text === null ? otherwise : JSON.parse(text);
    } catch {
      return otherwise;
    }
  }

  function forget(name) {
    try {
      localStorage.removeItem(`audiograft-audit/${name}`);
    } catch {
      // It was never kept.
    }
  }

  // Names of what is remembered, in order.
  function rememberedNames(prefix) {
    try {
      const start = "audiograft-audit/";
      return Object.keys(localStorage).filter((name) => name.startsWith(start + prefix)).map((name) => name.slice(start.length)).sort();
    } catch {
      return [];
    }
  }

  // Sorts by time. Not crypto.randomUUID, which a page from another machine has only over HTTPS.
  let drawn = 0;
  function newId() {
    const random = [...crypto.getRandomValues(new Uint32Array(2))].map((number) => number.toString(16).padStart(8, "0")).join("");
    drawn += 1;
    return `${String(Date.now()).padStart(14, "0")}-${String(drawn).padStart(6, "0")}-${random}`;
  }

  let hiding = 0;
  function toast(...parts) {
    const node = byId("toast");
    node.replaceChildren(...parts);
    node.hidden = false;
    clearTimeout(hiding);
    hiding = setTimeout(() => { node.hidden = true; }, 6000);
  }

  return { byId, make, foreign, known, percent, seconds, whole, counted, clock, remember, remembered, forget, rememberedNames, newId, toast };
})();
