"use strict";

// One clip's sound: play, seek, speed, and its waveform.
const Player = (() => {
  const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 2];
  const SETTLE_MS = 120;
  const audio = Dom.byId("audio");
  const wave = Dom.byId("wave");
  const canvas = Dom.byId("canvas");
  const button = Dom.byId("play");
  let clip = null;
  let part = 0;
  let shape = null;
  let timer = 0;
  let isLoaded = false;

  const duration_s = () => (Number.isFinite(audio.duration) ? audio.duration : (shape?.duration_s ?? 0));

  function start() {
    const speed = Dom.byId("speed");
    speed.append(...SPEEDS.map((value) => Dom.make("option", { value }, `${value}×`)));
    setSpeed(Dom.remembered("speed", 1));
    speed.addEventListener("change", () => setSpeed(Number(speed.value)));
    button.addEventListener("click", toggle);
    for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, showState);
    for (const name of ["timeupdate", "seeked", "durationchange"]) audio.addEventListener(name, draw);
    audio.addEventListener("play", follow);
    audio.addEventListener("error", () => { if (isLoaded) missing(); });
    wave.addEventListener("pointerdown", (event) => { wave.setPointerCapture(event.pointerId); toPointer(event); });
    wave.addEventListener("pointermove", (event) => { if (wave.hasPointerCapture(event.pointerId)) toPointer(event); });
    new ResizeObserver(draw).observe(wave);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  function setSpeed(value) {
    const speed = SPEEDS.includes(value) ? value : 1;
    Dom.byId("speed").value = String(speed);
    audio.defaultPlaybackRate = speed;
    audio.playbackRate = speed;
    Dom.remember("speed", speed);
  }

  function changeSpeed(step) {
    const place = SPEEDS.indexOf(audio.playbackRate) + step;
    setSpeed(SPEEDS[Math.min(Math.max(place, 0), SPEEDS.length - 1)]);
  }

  // Who leafs through the list quickly does not fetch what is passed over.
  function show(next, playNow) {
    clip = next;
    const parts = Dom.byId("parts");
    parts.replaceChildren();
    if (clip.parts > 1) {
      for (let number = 0; number < clip.parts; number += 1) {
        parts.append(Dom.make("button", { type: "button", onclick: () => { choosePart(number); load(); play(); } }, `file ${number + 1}`));
      }
    }
    choosePart(0);
    clearTimeout(timer);
    if (playNow) play();
    else timer = setTimeout(load, SETTLE_MS);
  }

  function choosePart(number) {
    part = number;
    audio.pause();
    audio.removeAttribute("src");
    isLoaded = false;
    shape = null;
    Dom.byId("audio-missing").hidden = true;
    button.disabled = false;
    [...Dom.byId("parts").children].forEach((node, place) => node.setAttribute("aria-pressed", String(place === number)));
    draw();
  }

  function load() {
    clearTimeout(timer);
    if (isLoaded || clip === null) return;
    isLoaded = true;
    const source = clip.parts === 0 ? null : Backend.audio(clip, part);
    if (source === null) {
      missing();
      return;
    }
    audio.src = source;
    loadShape();
  }

  async function loadShape() {
    const [wantedClip, wantedPart] = [clip, part];
    let answer = null;
    try {
      answer = await Backend.peaks(clip, part);
    } catch {
      // The audio element says what is wrong with the file.
    }
    if (clip !== wantedClip || part !== wantedPart) return;
    shape = answer;
    draw();
  }

  function missing() {
    button.disabled = true;
    const node = Dom.byId("audio-missing");
    node.textContent = clip.parts === 0 ? "audio missing: this row has none" : "audio missing: its file is not there or can't be played";
    node.hidden = false;
  }

  function play() {
    load();
    if (!button.disabled) audio.play().catch(showState);  // refused, or taken over by the next clip: the button shows it
  }

  function toggle() {
    if (audio.paused) play();
    else audio.pause();
  }

  function seek(time_s) {
    load();
    audio.currentTime = Math.min(Math.max(time_s, 0), duration_s());
    draw();
  }

  function toPointer(event) {
    const box = wave.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * duration_s());
  }

  function showState() {
    button.textContent = audio.paused ? "▶" : "❚❚";
    button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    draw();
  }

  function follow() {
    draw();
    if (!audio.paused) requestAnimationFrame(follow);
  }

  function draw() {
    const total_s = duration_s();
    const share = total_s > 0 ? Math.min(audio.currentTime / total_s, 1) : 0;
    Dom.byId("clock").textContent = `${Dom.clock(audio.currentTime)} / ${Dom.clock(total_s)}`;
    wave.setAttribute("aria-valuemax", total_s.toFixed(1));
    wave.setAttribute("aria-valuenow", audio.currentTime.toFixed(1));
    wave.setAttribute("aria-valuetext", `${audio.currentTime.toFixed(1)} of ${total_s.toFixed(1)} seconds`);
    const { clientWidth: width, clientHeight: height } = wave;
    const scale = window.devicePixelRatio || 1;
    const [pixels, lines] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== pixels) canvas.width = pixels;
    if (canvas.height !== lines) canvas.height = lines;
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const colours = getComputedStyle(wave);
    const peaks = shape?.peaks ?? [];
    const step = width / Math.max(peaks.length, 1);
    peaks.forEach((peak, place) => {
      const tall = Math.max(1, (peak / 255) * (height - 4));
      pen.fillStyle = colours.getPropertyValue(place / peaks.length < share ? "--wave-done" : "--wave");
      pen.fillRect(place * step, (height - tall) / 2, Math.max(step * 0.75, 0.75), tall);
    });
    pen.fillStyle = colours.getPropertyValue("--playhead");
    pen.fillRect(Math.min(share * width, width - 2), 0, 2, height);
  }

  return { start, show, toggle, changeSpeed, skip: (step_s) => seek(audio.currentTime + step_s) };
})();
