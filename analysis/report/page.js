(() => {
  const $ = (id) => document.getElementById(id);
  const { plot, draw, make, value, spread, swatch } = plots;

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
  document.querySelectorAll(".scripted").forEach((one) => { one.hidden = false; });
  if (slider) {
    const frames = JSON.parse($("frames").textContent), strips = [...document.querySelectorAll(".tile .strip")], readout = document.querySelector(".readout");
    const curves = [...document.querySelectorAll(".curve")].map((path) => [path, path.dataset.name]);
    const grids = [...document.querySelectorAll(".tile .samples")], columns = grids.length ? Number(grids[0].closest(".tiles").style.getPropertyValue("--columns")) : 1;
    const steps = frames.map((frame) => Number(frame.step.replaceAll(",", "")));
    const show = () => {
      const frame = frames[Number(slider.value)];
      now = steps[Number(slider.value)];
      marks.forEach((mark) => mark());
      if (frame.strip) strips.forEach((tile, i) => {
        tile.style.backgroundImage = `url(${frame.strip})`;
        tile.setAttribute("aria-label", frame.names[i]); tile.nextElementSibling.textContent = frame.names[i];
      });
      if (frame.samples.length) grids.forEach((grid, i) => {
        frame.samples[i].forEach((place, k) => { grid.children[k].style.setProperty("--x", place % columns); grid.children[k].style.setProperty("--y", Math.floor(place / columns)); });
        grid.setAttribute("aria-label", `${frame.names[i]}: the samples at which it is greatest, then least`); grid.nextElementSibling.textContent = frame.names[i];
      });
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

  // Figures that can be drawn anew, and what time axis the reader chose: "" is each figure's own.
  const figures = [], phone = matchMedia("(max-width: 36rem)"), axisOf = $("scale");
  const called = (panel) => [panel.title, panel.y].filter(Boolean).join(": ");
  const stairs = (points) => points.flatMap((p, i) => (i ? [[p[0], points[i - 1][1]], p] : [p]));
  const live = (drawing, panels) => {
    const place = make("div"), id = drawing.parentElement.id;
    let made = null;
    place.className = "plots live"; place.hidden = true;
    drawing.after(place);
    const spec = (panel) => ({
      label: panel.title || panel.y, flat: id === "figure-overview", x: panel.x, short: panel.axis, all: panel.lines.length <= 12, log: panel.log, rules: panel.rules, marks: panel.marks, named: panel.named,
      pure: panel.scale === "pure", scale: (panel.axis === "step" && axisOf && axisOf.value) || (panel.scale === "pure" ? "" : panel.scale),
      click: slider && panel.axis === "step" ? (step) => remember(moveTo(step), id.replace(/^figure-/, "")) : null,
      lines: panel.lines.map((one) => ({ ...one, points: one.steps ? stairs(one.points.map((p) => p.slice(2))) : one.points.map((p) => p.slice(2)) })),
    });
    const draw_ = () => {
      made = panels.map((panel, i) => {
        const part = make("div"), host = make("div"), key = make("p");
        host.id = `${id}-live-${i}`; host.className = "host"; key.className = "key legend still";
        if (called(panel)) part.append(make("h4", called(panel)));
        key.append(...panel.lines.map((one) => { const item = make("span"); item.append(swatch(one), one.label); return item; }));
        part.append(key, host); place.append(part);
        return [panel, plot(host, spec(panel))];
      });
      if (slider) { marks.push(moment); moment(); }
    };
    const moment = () => made.forEach(([panel, one]) => { if (panel.axis === "step") one.mark(now); });
    const show = (on) => {
      place.hidden = !on; drawing.hidden = on;
      if (on && !made) draw_();
      else if (on) made.forEach(([panel, one]) => one.redraw(spec(panel)));
    };
    const wanted = () => phone.matches || Boolean(axisOf && axisOf.value && panels.some((panel) => panel.axis === "step"));
    return {
      shown: () => (place.hidden ? null : made.map(([panel, one]) => ({
        title: called(panel), key: panel.lines, svg: one.svg,
      }))),
      update: () => show(wanted()),
      zoom: (factor) => { if (place.hidden) show(true); made.forEach(([, one]) => one.zoom(factor)); },
      back: () => { if (made) made.forEach(([, one]) => one.whole()); show(wanted()); },
    };
  };
  const update = () => figures.forEach((one) => one.update());

  // A figure's numbers as a table: a line's points, a map's cells, or what bars stand for; its panels one after the other.
  const table = (panels) => {
    const axes = [...new Set(panels.map((panel) => (panel.map ? "column" : panel.spots ? "of" : panel.axis)))], maps = panels.every((panel) => panel.map);
    const edged = panels.some((panel) => (panel.lines || []).some((one) => one.points.some((point) => point.length > 4)));
    return [["panel", maps ? "row" : "line", axes.length === 1 ? axes[0] : "x", "value", ...(edged ? ["low", "high"] : [])], ...panels.flatMap((panel, i) => {
      const name = called(panel) || String(i + 1);
      if (panel.map) return panel.map.values.flatMap((row, j) => row.map((v, k) => [name, panel.map.rows[j], panel.map.columns[k], v]));
      if (panel.spots) return panel.spots.flatMap(({ head, rows }) => rows.map(([label, v]) => [name, label, head, v]));
      return panel.lines.flatMap((one) => one.points.map((point) => [name, one.label, ...point.slice(2)]));
    })];
  };

  // Every drawing: values under the pointer or the arrow keys, and zoom (buttons, + and −, drag; 0 shows the whole again).
  const tip = $("tip");
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  // What is laid out narrowly has the same panels elsewhere; what is in parts of a box stays so.
  const elsewhere = (panels, boxes) => panels.map((panel, i) => {
    const [left, top, right, bottom] = panel.box, box = boxes[i], x = (v) => box[0] + ((v - left) / (right - left)) * (box[2] - box[0]), y = (v) => box[1] + ((v - top) / (bottom - top)) * (box[3] - box[1]);
    return { ...panel, box, lines: panel.lines && panel.lines.map((one) => ({ ...one, points: one.points.map(([a, b, ...rest]) => [x(a), y(b), ...rest]) })),
      spots: panel.spots && panel.spots.map((one) => ({ ...one, at: [x(one.at[0]), y(one.at[1]), x(one.at[2]), y(one.at[3])] })) };
  });
  document.querySelectorAll(".drawing").forEach((drawing) => {
    const narrow = drawing.dataset.boxes, svg = drawing.querySelector("svg");
    const panels = narrow ? elsewhere(JSON.parse(drawing.previousElementSibling.dataset.hover), JSON.parse(narrow)) : JSON.parse(drawing.dataset.hover);
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const layer = draw("g", {}), view = { x: 0, y: 0, scale: 1 };
    (drawing.classList.contains("in-pieces") ? svg.querySelector("g") : svg).append(layer); // a piece shows what is in the drawing's first group
    const hide = () => { layer.replaceChildren(); tip.hidden = true; };

    // The slider's moment is a line in every course over steps, and a click in one moves the slider there.
    const timed = panels.filter((panel) => panel.axis === "step" && panel.lines.some((one) => one.points.length)), moment = draw("g", {});
    // Where a step stands: a measured one at its place, one between two of them in between, one beyond them nowhere.
    const times = timed.map(({ lines }) => lines.flatMap((one) => one.points.map((p) => [p[2], p[0]])).sort((a, b) => a[0] - b[0]));
    const placed = (list, step) => {
      const i = list.findIndex(([s]) => s >= step);
      if (i < 0 || (i === 0 && list[0][0] > step)) return null;
      const [s1, x1] = list[i], [s0, x0] = list[Math.max(i - 1, 0)];
      return s1 === step || s1 === s0 ? x1 : x0 + ((x1 - x0) * (step - s0)) / (s1 - s0);
    };
    if (slider && timed.length) {
      layer.before(moment);
      drawing.classList.add("timed");
      const mark = () => moment.replaceChildren(...timed.flatMap(({ box }, i) => {
        const x = placed(times[i], now);
        return x === null ? [] : [draw("line", { class: "moment", x1: x * width, x2: x * width, y1: box[1] * height, y2: box[3] * height })];
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
    let seen = svg; // the drawing, or the piece of it under the pointer: all count in the drawing's points
    const inside = (event) => {
      seen = (event.target.closest && event.target.closest("svg.piece")) || svg;
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(seen.getScreenCTM().inverse());
      return [place.x, place.y];
    };
    const onScreen = (x, y) => new DOMPoint(x, y).matrixTransform(seen.getScreenCTM());

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

    // A figure of lines alone is drawn anew from its numbers where one zooms, chooses a time axis, or reads on a phone.
    const living = panels.length && panels.every((panel) => panel.scale) ? live(drawing, panels) : null;
    if (living) figures.push(living);
    const tools = drawing.parentElement.querySelector(".tools");
    if (tools && !narrow) {
      tools.hidden = false;
      const [closer, away, back] = tools.querySelectorAll("button");
      const by = (factor) => (living ? living.zoom(factor) : drawing.checkVisibility() && zoom(factor));
      closer.addEventListener("click", () => by(1.6)); away.addEventListener("click", () => by(1 / 1.6));
      back.addEventListener("click", () => { if (living) living.back(); whole(); });
    }
    const figure = drawing.parentElement, all = svg.getAttribute("viewBox");
    if (narrow) figure.querySelectorAll(".tools button").forEach((button, i) => button.addEventListener("click", () => drawing.checkVisibility() && (i === 2 ? whole() : zoom(i ? 1 / 1.6 : 1.6))));
    if (!narrow) save.offer(figure, {
      name: figure.id.replace(/^figure-/, ""), title: figure.querySelector("h3").textContent.trim(), command: figure.dataset.command,
      drawn: () => { const shown = living && living.shown(); return shown ? save.stacked(shown) : save.copy(svg, all); },
      rows: panels.length ? () => table(panels) : null,
    });
    drawing.addEventListener("dblclick", (event) => (living ? living.zoom(2.2) : zoom(2.2, ...inside(event))));
    drawing.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && view.scale === 1) return; // an ordinary wheel scrolls the page
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...inside(event));
    }, { passive: false });

    let held = null, dragged = null;
    drawing.addEventListener("pointerdown", (event) => { if (view.scale > 1) { dragged = inside(event); drawing.setPointerCapture(event.pointerId); } });
    drawing.addEventListener("pointerup", () => { dragged = null; });

    const line = (panel, x, y) => {
      const anchor = nearest(panel.lines.flatMap((one) => one.points), x);
      layer.replaceChildren(draw("line", { class: "crosshair", x1: anchor[0] * width, x2: anchor[0] * width, y1: panel.box[1] * height, y2: panel.box[3] * height }));
      tip.replaceChildren(make("b", `${panel.axis} ${value(anchor[2])}`));
      for (const one of panel.lines) {
        const point = nearest(one.points, anchor[0]);
        if (point[2] !== anchor[2]) continue;
        layer.append(draw("circle", { class: "dot", cx: point[0] * width, cy: point[1] * height, r: 3.2, style: `fill: ${one.colour}` }));
        const row = make("span"), name = make("span"), mark = make("i");
        mark.style.background = one.colour; name.append(mark, one.label); row.append(name, make("span", spread(one, point.slice(2)))); tip.append(row);
      }
      put(anchor[0] * width, panel.box[1] * height);
      return [anchor[0], y];
    };
    const outline = ([left, top, right, bottom]) => {
      layer.replaceChildren(draw("rect", { class: "cell", x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height }));
      put(right * width, top * height);
      return [(left + right) / 2, (top + bottom) / 2];
    };
    // A map's cell lies in a column and a row; of a map that is told in part, the nearest that is told.
    const within = (list, v) => list.reduce((best, [a, b], i) => (Math.max(a - v, v - b) < best[1] ? [i, Math.max(a - v, v - b)] : best), [0, Infinity])[0];
    const cell = (panel, x, y) => {
      const [left, top, right, bottom] = panel.box, { values, columns, rows } = panel.map, w = right - left, h = bottom - top;
      const i = within(panel.map.x, (x - left) / w), j = within(panel.map.y, (y - top) / h), [a, b] = panel.map.x[i], [c, d] = panel.map.y[j];
      tip.replaceChildren(make("b", `${columns[i]} · ${rows[j]}`), make("span", value(values[j][i])));
      return outline([left + a * w, top + c * h, left + b * w, top + d * h]);
    };
    const spot = (panel, x, y) => {
      const far = ({ at: [a, b, c, d] }) => Math.hypot(Math.max(a - x, 0, x - c) * width, Math.max(b - y, 0, y - d) * height);
      const { at: place, head, rows } = panel.spots.reduce((best, one) => (far(one) < far(best) ? one : best));
      tip.replaceChildren(make("b", head), ...rows.map(([label, v, colour]) => {
        const row = make("span"), name = make("span"), mark = make("i");
        mark.style.background = colour; name.append(mark, label); row.append(name, make("span", typeof v === "number" ? value(v) : v)); return row;
      }));
      return outline(place);
    };
    const put = (x, y) => {
      tip.hidden = false;
      const at = onScreen(x, y);
      tip.style.left = `${Math.max(6, at.x + 14 + tip.offsetWidth < innerWidth ? at.x + 14 : at.x - 14 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(6, Math.min(at.y + 10, innerHeight - tip.offsetHeight - 6))}px`;
    };
    const at = (panel, x, y = (panel.box[1] + panel.box[3]) / 2) => (panel.map ? cell : panel.spots ? spot : line)(panel, x, y);
    const across = ({ box: [left, , right], map, spots, lines }) => {
      if (map) return map.x.map(([a, b]) => left + ((a + b) / 2) * (right - left));
      return (spots ? spots.map((one) => (one.at[0] + one.at[2]) / 2) : [...new Set(lines.flatMap((one) => one.points.map((point) => point[0])))]).sort((a, b) => a - b);
    };
    const down = ({ box: [, top, , bottom], map, spots }) => {
      if (map) return map.y.map(([a, b]) => top + ((a + b) / 2) * (bottom - top)).sort((a, b) => a - b);
      return spots ? [...new Set(spots.map((one) => (one.at[1] + one.at[3]) / 2))].sort((a, b) => a - b) : [];
    };
    const next = (list, here, by) => {
      const i = here === null ? (by > 0 ? -1 : list.length) : list.findIndex((p) => Math.abs(p - here) < 1e-9);
      return list[Math.max(0, Math.min(list.length - 1, i + by))];
    };
    drawing.addEventListener("pointermove", (event) => {
      const [px, py] = inside(event), x = px / width, y = py / height;
      if (dragged) { view.x += dragged[0] - px; view.y += dragged[1] - py; return frame(); }
      const panel = panels.find(({ box }) => x >= box[0] - 0.01 && x <= box[2] + 0.01 && y >= box[1] && y <= box[3]);
      if (panel) held = [panel, ...at(panel, x, y)]; else hide();
    });
    drawing.addEventListener("pointerleave", hide);
    drawing.addEventListener("blur", hide);
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      if (event.key === "+" || event.key === "=") return living ? living.zoom(1.6) : zoom(1.6);
      if (event.key === "-") return zoom(1 / 1.6);
      if (event.key === "0") return whole();
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], up = { ArrowUp: -1, ArrowDown: 1 }[event.key], panel = held ? held[0] : panels[0];
      if (!panel || !(by || (up && held && down(panel).length))) return;
      event.preventDefault();
      held = [panel, ...(by ? at(panel, next(across(panel), held && held[1], by), held ? held[2] : undefined) : at(panel, held[1], next(down(panel), held[2], up)))];
    });
  });

  if (axisOf) {
    axisOf.closest("label").hidden = !figures.length;
    axisOf.addEventListener("change", update);
  }
  phone.addEventListener("change", update);
  addEventListener("beforeprint", () => figures.forEach((one) => one.back()));
  update();

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
