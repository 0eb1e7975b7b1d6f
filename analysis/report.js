"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text) => { const node = document.createElement(tag); if (text !== undefined) node.textContent = text; return node; };

  // The theme: the reader's system decides until they press the button.
  const root = document.documentElement, theme = $("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // The slider over snapshots.
  const slider = $("moment");
  if (slider) {
    const frames = JSON.parse($("frames").textContent), strips = document.querySelectorAll(".tile .strip"), readout = document.querySelector(".readout");
    const show = () => {
      const frame = frames[Number(slider.value)];
      strips.forEach((tile) => { tile.style.backgroundImage = `url(${frame.strip})`; });
      $("moment-step").value = `step ${frame.step}`;
      slider.setAttribute("aria-valuetext", `step ${frame.step}`);
      readout.replaceChildren(...frame.facts.map(([label, value]) => {
        const pair = make("div"); pair.append(make("dt", label), make("dd", value)); return pair;
      }));
    };
    const play = $("play");
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶"; play.setAttribute("aria-label", "Play"); };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === frames.length - 1) slider.value = 0;
      play.textContent = "❚❚"; play.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        if (Number(slider.value) >= frames.length - 1) return stop();
        slider.value = Number(slider.value) + 1; show();
      }, 220);
    });
    slider.addEventListener("input", () => { stop(); show(); });
    show();
  }

  // Values under the pointer, or under the arrow keys.
  const tip = $("tip"), SVG = "http://www.w3.org/2000/svg";
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const value = (v) => (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e7) || v === 0 ? format.format(v) : v.toExponential(3);
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));

  document.querySelectorAll(".drawing").forEach((drawing) => {
    const panels = JSON.parse(drawing.dataset.hover), svg = drawing.querySelector("svg");
    if (!panels.length) { drawing.removeAttribute("tabindex"); return; }
    const layer = document.createElementNS(SVG, "g"), [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    svg.append(layer);
    const hide = () => { layer.replaceChildren(); tip.hidden = true; };
    const node = (name, attributes) => {
      const made = document.createElementNS(SVG, name);
      Object.entries(attributes).forEach(([key, v]) => made.setAttribute(key, v));
      layer.append(made);
      return made;
    };
    const at = (panel, x) => {
      const anchor = nearest(panel.lines.flatMap((line) => line.points), x);
      layer.replaceChildren(); tip.replaceChildren(make("b", `step ${anchor[2].toLocaleString("en")}`));
      node("line", { class: "crosshair", x1: anchor[0] * width, x2: anchor[0] * width, y1: panel.box[1] * height, y2: panel.box[3] * height });
      for (const line of panel.lines) {
        const point = nearest(line.points, anchor[0]);
        if (point[2] !== anchor[2]) continue;
        node("circle", { class: "dot", cx: point[0] * width, cy: point[1] * height, r: 3.2, style: `fill: ${line.colour}` });
        const row = make("span"), name = make("span"), mark = make("i");
        mark.style.background = line.colour; name.append(mark, line.label); row.append(name, make("span", value(point[3]))); tip.append(row);
      }
      tip.hidden = false;
      const frame = svg.getBoundingClientRect(), left = frame.left + anchor[0] * frame.width, top = frame.top + panel.box[1] * frame.height;
      tip.style.left = `${Math.max(6, left + 14 + tip.offsetWidth < innerWidth ? left + 14 : left - 14 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(6, Math.min(top + 10, innerHeight - tip.offsetHeight - 6))}px`;
      return anchor;
    };
    let held = null;
    drawing.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect(), x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
      const panel = panels.find(({ box }) => x >= box[0] - 0.01 && x <= box[2] + 0.01 && y >= box[1] && y <= box[3]);
      if (panel) held = [panel, at(panel, x)]; else hide();
    });
    drawing.addEventListener("pointerleave", hide);
    drawing.addEventListener("blur", hide);
    drawing.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") return hide();
      if (!direction) return;
      event.preventDefault();
      const panel = held ? held[0] : panels[0], places = [...new Set(panel.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
      const here = held ? places.indexOf(held[1][0]) : direction > 0 ? -1 : places.length;
      held = [panel, at(panel, places[Math.max(0, Math.min(places.length - 1, here + direction))])];
    });
  });
})();
