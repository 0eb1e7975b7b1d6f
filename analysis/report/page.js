(() => {
  const $ = (id) => document.getElementById(id);
  const { plot, draw, make, value, show: tell } = plots;

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
    const steps = frames.map((frame) => Number(frame.step.replaceAll(",", "")));
    const show = () => {
      const frame = frames[Number(slider.value)];
      now = steps[Number(slider.value)];
      marks.forEach((mark) => mark());
      if (frame.strip) strips.forEach((tile, i) => {
        tile.style.backgroundImage = `url(${frame.strip})`;
        tile.setAttribute("aria-label", frame.names[i]); tile.nextElementSibling.textContent = frame.names[i];
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
  const figures = [], narrow = matchMedia("(max-width: 36rem)"), axisOf = $("scale");
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
      lines: panel.lines.map(({ label, colour, dash, steps, points }) => ({ label, colour, dash, points: steps ? stairs(points.map((p) => [p[2], p[3]])) : points.map((p) => [p[2], p[3]]) })),
    });
    const draw_ = () => {
      made = panels.map((panel, i) => {
        const part = make("div"), host = make("div"), key = make("p");
        host.id = `${id}-live-${i}`; host.className = "host"; key.className = "key legend still";
        if (called(panel)) part.append(make("h4", called(panel)));
        key.append(...panel.lines.map(({ label, colour, dash }) => {
          const item = make("span"), mark = make("i");
          mark.style.background = dash ? `repeating-linear-gradient(90deg, ${colour} 0 5px, transparent 5px 8px)` : colour;
          item.append(mark, label); return item;
        }));
        part.append(key, host); place.append(part);
        return [panel, plot(host, spec(panel))];
      });
    };
    const show = (on) => {
      place.hidden = !on; drawing.hidden = on;
      if (on && !made) draw_();
      else if (on) made.forEach(([panel, one]) => one.redraw(spec(panel)));
    };
    const wanted = () => narrow.matches || Boolean(axisOf && axisOf.value && panels.some((panel) => panel.axis === "step"));
    return {
      shown: () => (place.hidden ? null : made.map(([panel, one]) => ({
        title: called(panel), key: panel.lines.map(({ colour, label, dash }) => [colour, label, dash]), svg: one.svg,
      }))),
      update: () => show(wanted()),
      zoom: (factor) => { if (place.hidden) show(true); made.forEach(([, one]) => one.zoom(factor)); },
      back: () => { if (made) made.forEach(([, one]) => one.whole()); show(wanted()); },
    };
  };
  const update = () => figures.forEach((one) => one.update());

  // A figure's numbers as a table: a line's points, or a map's cells; each figure's panels one after the other.
  const table = (panels) => {
    const axes = [...new Set(panels.map((panel) => (panel.map ? "column" : panel.axis)))], maps = panels.every((panel) => panel.map);
    return [["panel", maps ? "row" : "line", axes.length === 1 ? axes[0] : "x", "value"], ...panels.flatMap((panel, i) => {
      const name = called(panel) || String(i + 1);
      if (panel.map) return panel.map.values.flatMap((row, j) => row.map((v, k) => [name, panel.map.rows[j], panel.map.columns[k], v]));
      return panel.lines.flatMap((one) => one.points.map((point) => [name, one.label, point[2], point[3]]));
    })];
  };

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

    // A figure of lines alone is drawn anew from its numbers where one zooms, chooses a time axis, or reads on a phone.
    const living = panels.length && panels.every((panel) => panel.scale) ? live(drawing, panels) : null;
    if (living) figures.push(living);
    const tools = drawing.parentElement.querySelector(".tools");
    if (tools) {
      tools.hidden = false;
      const [closer, away, back] = tools.querySelectorAll("button");
      const by = (factor) => (living ? living.zoom(factor) : zoom(factor));
      closer.addEventListener("click", () => by(1.6)); away.addEventListener("click", () => by(1 / 1.6));
      back.addEventListener("click", () => { if (living) living.back(); whole(); });
    }
    const figure = drawing.parentElement, all = svg.getAttribute("viewBox");
    save.offer(figure, {
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
      if (event.key === "+" || event.key === "=") return living ? living.zoom(1.6) : zoom(1.6);
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

  if (axisOf) {
    axisOf.closest("label").hidden = !figures.length;
    axisOf.addEventListener("change", update);
  }
  narrow.addEventListener("change", update);
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
