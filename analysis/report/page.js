"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text) => { const node = document.createElement(tag); if (text !== undefined) node.textContent = text; return node; };
  const SVG = "http://www.w3.org/2000/svg";
  const draw = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, v]) => made.setAttribute(key, v));
    return made;
  };
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const value = (v) => v === null ? "–" : (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e7) || v === 0 ? format.format(v) : v.toExponential(3);

  // The theme: the reader's system decides until they press the button.
  const root = document.documentElement, theme = $("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // The moment and the figure that is looked at stand in the address, #step=2000&figure=stability; whoever opens it sees both.
  const place = { step: null, figure: null }, marks = [];
  let moveTo = () => null, now = null;
  const remember = (step, figure) => {
    if (step !== null) place.step = step;
    if (figure) place.figure = figure;
    const parts = Object.entries(place).filter(([, v]) => v !== null).map(([key, v]) => `${key}=${encodeURIComponent(v)}`);
    history.replaceState(null, "", `#${parts.join("&")}`);
  };

  // The slider over snapshots: images where the inputs are a plane, and for every run its spectrum and energies.
  const slider = $("moment");
  if (slider) {
    const frames = JSON.parse($("frames").textContent), strips = document.querySelectorAll(".tile .strip"), readout = document.querySelector(".readout");
    const curves = [...document.querySelectorAll(".curve")].map((path) => [path, path.dataset.name]);
    const steps = frames.map((frame) => Number(frame.step.replaceAll(",", "")));
    const show = () => {
      const frame = frames[Number(slider.value)];
      now = steps[Number(slider.value)];
      marks.forEach((mark) => mark());
      if (frame.strip) strips.forEach((tile) => { tile.style.backgroundImage = `url(${frame.strip})`; });
      curves.forEach(([path, name]) => path.setAttribute("d", frame.curves[name] || ""));
      $("moment-step").value = `step ${frame.step}`;
      slider.setAttribute("aria-valuetext", `step ${frame.step}`);
      readout.replaceChildren(...frame.facts.map(([label, text]) => {
        const pair = make("div"); pair.append(make("dt", label), make("dd", text)); return pair;
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
    slider.addEventListener("input", () => { stop(); show(); remember(now); });
    moveTo = (step) => {
      stop();
      slider.value = steps.reduce((best, s, i) => (Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best), 0);
      show();
      return now;
    };
    show();
  }

  // Every drawing: values under the pointer or the arrow keys, and zoom (buttons, + and −, drag; 0 shows the whole again).
  const tip = $("tip");
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  document.querySelectorAll(".drawing").forEach((drawing) => {
    const panels = JSON.parse(drawing.dataset.hover), svg = drawing.querySelector("svg");
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const layer = draw("g", {}), view = { x: 0, y: 0, scale: 1 };
    svg.append(layer);
    const hide = () => { layer.replaceChildren(); tip.hidden = true; };

    // The slider's moment is a line in every course over steps, and a click in one moves the slider there.
    const timed = panels.filter((panel) => panel.axis === "step" && panel.lines.some((one) => one.points.length)), moment = draw("g", {});
    if (slider && timed.length) {
      svg.insertBefore(moment, layer);
      drawing.classList.add("timed");
      const mark = () => moment.replaceChildren(...timed.map(({ box, lines }) => {
        const [x] = lines.flatMap((one) => one.points).reduce((a, b) => (Math.abs(b[2] - now) < Math.abs(a[2] - now) ? b : a));
        return draw("line", { class: "moment", x1: x * width, x2: x * width, y1: box[1] * height, y2: box[3] * height });
      }));
      marks.push(mark);
      mark();
      drawing.addEventListener("click", (event) => {
        const [px, py] = inside(event), x = px / width, y = py / height;
        const panel = timed.find(({ box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);
        if (!panel || view.scale > 1) return;
        remember(moveTo(nearest(panel.lines.flatMap((one) => one.points), x)[2]), drawing.parentElement.id.replace(/^figure-/, ""));
      });
    }
    const inside = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [place.x, place.y];
    };
    const onScreen = (x, y) => new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());

    const frame = () => {
      view.scale = Math.max(1, Math.min(24, view.scale));
      const w = width / view.scale, h = height / view.scale;
      view.x = Math.max(0, Math.min(width - w, view.x)); view.y = Math.max(0, Math.min(height - h, view.y));
      svg.setAttribute("viewBox", `${view.x} ${view.y} ${w} ${h}`);
      svg.style.overflow = view.scale > 1 ? "hidden" : "";
      drawing.classList.toggle("zoomed", view.scale > 1);
      hide();
    };
    const zoom = (factor, x = view.x + width / view.scale / 2, y = view.y + height / view.scale / 2) => {
      const before = view.scale;
      view.scale = Math.max(1, Math.min(24, before * factor));
      view.x = x - ((x - view.x) * before) / view.scale; view.y = y - ((y - view.y) * before) / view.scale;
      frame();
    };
    const whole = () => { view.scale = 1; frame(); };
    const tools = drawing.parentElement.querySelector(".tools");
    if (tools) {
      tools.hidden = false;
      const [closer, away, back] = tools.querySelectorAll("button");
      closer.addEventListener("click", () => zoom(1.6)); away.addEventListener("click", () => zoom(1 / 1.6)); back.addEventListener("click", whole);
    }
    drawing.addEventListener("dblclick", (event) => zoom(2.2, ...inside(event)));
    drawing.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && view.scale === 1) return; // an ordinary wheel scrolls the page
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...inside(event));
    }, { passive: false });

    let held = null, dragged = null;
    drawing.addEventListener("pointerdown", (event) => { if (view.scale > 1) { dragged = inside(event); drawing.setPointerCapture(event.pointerId); } });
    drawing.addEventListener("pointerup", () => { dragged = null; });

    const line = (panel, x) => {
      const anchor = nearest(panel.lines.flatMap((one) => one.points), x);
      layer.replaceChildren(draw("line", { class: "crosshair", x1: anchor[0] * width, x2: anchor[0] * width, y1: panel.box[1] * height, y2: panel.box[3] * height }));
      tip.replaceChildren(make("b", `${panel.axis} ${value(anchor[2])}`));
      for (const one of panel.lines) {
        const point = nearest(one.points, anchor[0]);
        if (point[2] !== anchor[2]) continue;
        layer.append(draw("circle", { class: "dot", cx: point[0] * width, cy: point[1] * height, r: 3.2, style: `fill: ${one.colour}` }));
        const row = make("span"), name = make("span"), mark = make("i");
        mark.style.background = one.colour; name.append(mark, one.label); row.append(name, make("span", value(point[3]))); tip.append(row);
      }
      put(anchor[0] * width, panel.box[1] * height);
      return anchor[0];
    };
    const cell = (panel, x, y) => {
      const [left, top, right, bottom] = panel.box, { values, columns, rows, up } = panel.map;
      const clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
      const i = clamp((x - left) / (right - left), columns.length), down = clamp((y - top) / (bottom - top), rows.length);
      const j = up ? rows.length - 1 - down : down, w = (right - left) / columns.length, h = (bottom - top) / rows.length;
      layer.replaceChildren(draw("rect", { class: "cell", x: (left + i * w) * width, y: (top + down * h) * height, width: w * width, height: h * height }));
      tip.replaceChildren(make("b", `${columns[i]} · ${rows[j]}`), make("span", value(values[j][i])));
      put((left + (i + 1) * w) * width, (top + down * h) * height);
      return left + (i + 0.5) * w;
    };
    const put = (x, y) => {
      tip.hidden = false;
      const at = onScreen(x, y);
      tip.style.left = `${Math.max(6, at.x + 14 + tip.offsetWidth < innerWidth ? at.x + 14 : at.x - 14 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(6, Math.min(at.y + 10, innerHeight - tip.offsetHeight - 6))}px`;
    };
    const at = (panel, x, y = (panel.box[1] + panel.box[3]) / 2) => (panel.map ? cell(panel, x, y) : line(panel, x));
    drawing.addEventListener("pointermove", (event) => {
      const [px, py] = inside(event), x = px / width, y = py / height;
      if (dragged) { view.x += dragged[0] - px; view.y += dragged[1] - py; return frame(); }
      const panel = panels.find(({ box }) => x >= box[0] - 0.01 && x <= box[2] + 0.01 && y >= box[1] && y <= box[3]);
      if (panel) held = [panel, at(panel, x, y)]; else hide();
    });
    drawing.addEventListener("pointerleave", hide);
    drawing.addEventListener("blur", hide);
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      if (event.key === "+" || event.key === "=") return zoom(1.6);
      if (event.key === "-") return zoom(1 / 1.6);
      if (event.key === "0") return whole();
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!direction || !panels.length) return;
      event.preventDefault();
      const panel = held ? held[0] : panels[0];
      const places = panel.map
        ? panel.map.columns.map((_, i) => panel.box[0] + ((i + 0.5) * (panel.box[2] - panel.box[0])) / panel.map.columns.length)
        : [...new Set(panel.lines.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
      const here = held ? places.findIndex((p) => Math.abs(p - held[1]) < 1e-9) : direction > 0 ? -1 : places.length;
      held = [panel, at(panel, places[Math.max(0, Math.min(places.length - 1, here + direction))])];
    });
  });

  // What the address says: a link to a figure is the page's own anchor, one to a moment moves the slider.
  const follow = () => {
    if (!location.hash.includes("=")) return;
    const told = new URLSearchParams(location.hash.slice(1)), step = Number(told.get("step")), figure = told.get("figure");
    if (told.has("step") && Number.isFinite(step)) place.step = moveTo(step);
    const shown = figure && $(`figure-${figure}`);
    if (shown) { place.figure = figure; shown.scrollIntoView({ behavior: "instant" }); }
  };
  addEventListener("hashchange", follow);
  follow();
})();
