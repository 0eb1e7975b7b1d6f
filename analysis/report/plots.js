"use strict";
// Plots of lines over time or modes, drawn from numbers: axes that are redrawn when one zooms, values under the pointer.
// One drawing is an SVG of its place's own width, so that it is legible on a phone; its colours are the page's variables.
const plots = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const draw = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, v]) => made.setAttribute(key, v));
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const make = (tag, text) => { const node = document.createElement(tag); if (text !== undefined) node.textContent = text; return node; };
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const value = (v) => v === null ? "–" : (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e7) || v === 0 ? format.format(v).replace("-", "−") : v.toExponential(3).replace("-", "−");
  const raised = (n) => String(n).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  const tick = (v) => v === 0 || (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e5) ? new Intl.NumberFormat("en", { maximumSignificantDigits: 6 }).format(v).replace("-", "−") : power(v);
  const power = (v) => {
    const n = Math.floor(Math.log10(Math.abs(v)) + 1e-9), lead = Number((v / 10 ** n).toPrecision(3));
    return lead === 1 ? `10${raised(n)}` : `${String(lead).replace("-", "−")}·10${raised(n)}`;
  };

  // Scales: where a number stands, and back. "log" keeps 0: straight up to 1 and logarithmic beyond it; "anew" begins again
  // at every mark, for what follows a change of the rate is as quick as what follows the start. "pure" is a logarithm.
  const near = (t) => (t <= 1 ? 0.4 * t : 0.4 + Math.log10(t)), back = (u) => (u <= 0.4 ? u / 0.4 : 10 ** (u - 0.4));
  const scales = {
    linear: () => ({ to: (t) => t, from: (u) => u, origins: [] }),
    pure: () => ({ to: (t) => Math.log10(t), from: (u) => 10 ** u, origins: [0] }),
    log: () => ({ to: (t) => (t < 0 ? t : near(t)), from: (u) => (u < 0 ? u : back(u)), origins: [0] }),
    anew: (marks) => {
      const starts = [0, ...marks.filter((m) => m > 0)], base = [0];
      for (let i = 1; i < starts.length; i++) base.push(base[i - 1] + near(starts[i] - starts[i - 1]));
      const last = (list, v) => { let i = list.length - 1; while (i > 0 && list[i] > v) i--; return i; };
      return {
        to: (t) => { const i = last(starts, t); return base[i] + (t < 0 ? t : near(t - starts[i])); },
        from: (u) => { const i = last(base, u); return starts[i] + (u < 0 ? u : back(u - base[i])); },
        origins: starts,
      };
    },
  };
  const even = (low, high, wanted) => {
    const rough = (high - low) / Math.max(wanted, 1), ten = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= rough) || rough, found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && found.length < 50; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  };
  const ticks = (scale, low, high, wanted) => {
    const a = scale.from(low), b = scale.from(high);
    if (!scale.origins.length) return even(a, b, wanted);
    for (const leads of [[1], [1, 2, 5]]) {
      const found = [];
      scale.origins.forEach((start, i) => {
        if (start >= a && start <= b) found.push(start);
        for (let n = -12; n < 13; n++) for (const lead of leads) {
          const t = start + lead * 10 ** n;
          if ((n >= 0 || scale.pure) && t >= a && t <= b && t < (scale.origins[i + 1] ?? Infinity)) found.push(t);
        }
      });
      if (found.length >= 3) return [...new Set(found)].sort((x, y) => x - y);
    }
    return even(a, b, wanted);
  };
  const axis = (kind, marks) => { const made = scales[kind](marks); made.pure = kind === "pure"; return made; };

  // A path through the points in view, the least and the greatest of each pixel: no spike is lost, and nothing is smoothed.
  const path = (xs, ys, left, right) => {
    const parts = [];
    let column = null, kept = [];
    const flush = () => { if (kept.length > 4) { const order = [...kept].sort((p, q) => p[1] - q[1]), chosen = new Set([kept[0], order[0], order[order.length - 1], kept[kept.length - 1]]); kept = kept.filter((p) => chosen.has(p)); } kept.forEach((p) => parts.push(`${p[0].toFixed(1)} ${p[1].toFixed(1)}`)); kept = []; };
    xs.forEach((x, i) => {
      if (x < left && xs[i + 1] < left) return;
      if (x > right && xs[i - 1] > right) return;
      if (Math.floor(x) !== column) { flush(); column = Math.floor(x); }
      kept.push([x, ys[i]]);
    });
    flush();
    return parts.length ? `M${parts.join("L")}` : "";
  };

  // What stands beside a name: its value, and between what it lies where that was measured.
  const spread = ({ kind }, [, y, low, high]) => (low === undefined || kind === "area" ? value(y) : `${value(y)} (${value(low)} to ${value(high)})`);
  // A line in small, for a legend: as it is broken, or the ring of a dot.
  const swatch = ({ colour, dash, kind }) => {
    const mark = make("i"), [on, off] = dash === true ? [5, 3] : String(dash).split(" ").map(Number);
    mark.style.background = dash ? `repeating-linear-gradient(90deg, ${colour} 0 ${on}px, transparent ${on}px ${on + off}px)` : colour;
    if (kind === "dots") { mark.className = "ring"; mark.style.background = "none"; mark.style.borderColor = colour; }
    return mark;
  };
  // Lines that lie on an earlier one all along, which they hide.
  const hidden = (lines) => (lines.length > 12 ? [] : lines.flatMap((one, i) => {
    const same = (other) => other.kind === one.kind && other.at.length === one.at.length && one.at.every((x, k) => Math.abs(x - other.at[k]) < 1 && Math.abs(one.up[k] - other.up[k]) < 1);
    const under = one.at.length > 1 && lines.slice(0, i).find(same);
    return under ? [`${one.label} on ${under.label}`] : [];
  }));

  const tip = () => document.getElementById("tip");
  const show = (clientX, clientY, head, rows) => {
    const box = tip();
    box.replaceChildren(make("b", head), ...rows.map(([label, text, colour]) => {
      const row = make("span"), name = make("span"), mark = make("i");
      mark.style.background = colour; name.append(mark, label); row.append(name, make("span", text)); return row;
    }));
    box.hidden = false;
    box.style.left = `${Math.max(6, clientX + 14 + box.offsetWidth < innerWidth ? clientX + 14 : clientX - 14 - box.offsetWidth)}px`;
    box.style.top = `${Math.max(6, Math.min(clientY + 10, innerHeight - box.offsetHeight - 6))}px`;
  };

  // A plot in `host`. spec: { label, x, y, scale, pure, log, marks, named: [[x, text], …], rules, lines: [{ label, colour, dash, thin, kind, sizes,
  // points: [[x, y], …] or [[x, y, low, high], …] }], of kind "area" (a layer of a stack, its value beside its edges), "band" or "dots";
  // bands: [{ colour, points: [[x, low, high], …] }], all, flat }: `all` lists every line under the pointer, else the nearest; `flat`
  // is for rows over one axis.
  const plot = (host, first) => {
    let spec = first, window_ = null, held = null, moment = null;
    const svg = draw("svg", { role: "img", class: "plot", "aria-label": spec.label });
    host.replaceChildren(svg);
    let view = null;

    const redraw = (next) => {
      spec = next || spec;
      const width = Math.max(host.clientWidth, 220), height = spec.flat ? 160 : Math.round(Math.max(170, Math.min(300, width * 0.56)));
      const box = { left: 54, right: width - 12, top: (spec.named || []).length ? 24 : 10, bottom: height - (spec.x ? 40 : 26) };
      const scale = axis(spec.pure ? "pure" : spec.scale || "linear", spec.marks || []);
      const good = ([x, y]) => y !== null && Number.isFinite(y) && (!spec.log || y > 0) && (!spec.pure || x > 0);
      const level = (one, p) => (one.kind === "area" ? (p[2] + p[3]) / 2 : p[1]);
      const lines = spec.lines.map((one) => ({ ...one, points: one.points.filter(good) }));
      const edged = lines.filter((one) => one.kind === "area" || one.kind === "band").map((one) => ({ ...one, points: one.points.map((p) => [p[0], p[2], p[3]]) }));
      const bands = [...edged, ...(spec.bands || [])].map((one) => ({ ...one, points: one.points.filter(([x, low, high]) => good([x, high]) && Number.isFinite(low)) }));
      const across = [...lines, ...bands].flatMap((one) => one.points.map((p) => scale.to(p[0])));
      let low = across.reduce((a, b) => Math.min(a, b), Infinity), high = across.reduce((a, b) => Math.max(a, b), -Infinity);
      if (!(low <= high)) { svg.replaceChildren(draw("text", { x: 12, y: 24 }, "no number to draw")); view = null; return; }
      if (low === high) { low -= 0.5; high += 0.5; }
      const whole = [low - 0.015 * (high - low), high + 0.015 * (high - low)];
      const [u0, u1] = window_ || whole;
      const px = (x) => box.left + ((scale.to(x) - u0) / (u1 - u0)) * (box.right - box.left);
      // The vertical axis fits what is in view, so that zooming in time is zooming in value too.
      const up = (y) => (spec.log ? Math.log10(y) : y), seen = [];
      lines.forEach((one) => one.points.forEach((p) => { const u = scale.to(p[0]); if (u >= u0 && u <= u1) seen.push(...[level(one, p), ...(one.kind === "dots" ? p.slice(2) : [])].filter((y) => !spec.log || y > 0).map(up)); }));
      bands.forEach((one) => one.points.forEach((p) => { const u = scale.to(p[0]); if (u >= u0 && u <= u1) { seen.push(up(p[2])); if (!spec.log || p[1] > 0) seen.push(up(p[1])); } }));
      let v0 = seen.reduce((a, b) => Math.min(a, b), Infinity), v1 = seen.reduce((a, b) => Math.max(a, b), -Infinity);
      if (!(v0 <= v1)) { v0 = 0; v1 = 1; }
      // What differs by rounding alone is level: an axis over it would show noise as if it were motion.
      const pad = v1 - v0 <= 1e-9 * Math.max(Math.abs(v0), Math.abs(v1)) ? Math.abs(v0) * 0.05 || 0.5 : 0.05 * (v1 - v0);
      v0 -= pad; v1 += pad;
      const py = (y) => box.bottom - ((up(y) - v0) / (v1 - v0)) * (box.bottom - box.top);

      const parts = [], clip = `${host.id || "plot"}-clip`;
      const inner = draw("g", { "clip-path": `url(#${clip})` }), clipped = draw("clipPath", { id: clip });
      clipped.append(draw("rect", { x: box.left, y: box.top - 2, width: box.right - box.left, height: box.bottom - box.top + 4 }));
      const levels = ticks(spec.log ? axis("pure", []) : axis("linear", []), v0, v1, 5).filter((y) => py(y) >= box.top - 1 && py(y) <= box.bottom + 1);
      const thinned = levels.length > 7 ? levels.filter((_, i) => i % Math.ceil(levels.length / 6) === 0) : levels;
      thinned.forEach((y) => parts.push(draw("line", { class: "rule", x1: box.left, x2: box.right, y1: py(y), y2: py(y) }), draw("text", { x: box.left - 6, y: py(y) + 3.5, "text-anchor": "end" }, tick(y))));
      let free = -Infinity;
      ticks(scale, u0, u1, width / 90).forEach((x) => {
        const at = px(x), text = tick(x), half = 3.2 * text.length;
        parts.push(draw("line", { class: "rule", x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 }));
        if (at - half < free || at + half > width) return;
        free = at + half + 8;
        parts.push(draw("text", { x: at, y: box.bottom + 15, "text-anchor": "middle" }, text));
      });
      if (spec.x) parts.push(draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, spec.x));
      (spec.marks || []).forEach((x) => { if (scale.to(x) >= u0 && scale.to(x) <= u1) inner.append(draw("line", { class: "mark", x1: px(x), x2: px(x), y1: box.top, y2: box.bottom })); });
      let taken = -Infinity;
      (spec.named || []).forEach(([x, text]) => {
        const half = 3.3 * text.length, at = Math.max(box.left + half, Math.min(width - half, px(x)));
        if (scale.to(x) < u0 || scale.to(x) > u1 || at - half < taken) return;
        taken = at + half + 6;
        parts.push(draw("text", { x: at, y: box.top - 8, "text-anchor": "middle", class: "named" }, text));
      });
      (spec.rules || []).forEach(({ y, colour, dash }) => { if (!spec.log || y > 0) inner.append(draw("line", { class: "mark", x1: box.left, x2: box.right, y1: py(y), y2: py(y), style: `stroke: ${colour}`, "stroke-dasharray": dash || "none" })); });
      bands.forEach((one) => {
        const there = one.points.map((p) => `${px(p[0]).toFixed(1)} ${py(p[2]).toFixed(1)}`);
        const again = one.points.map((p) => `${px(p[0]).toFixed(1)} ${(spec.log && p[1] <= 0 ? box.bottom : py(p[1])).toFixed(1)}`).reverse();
        if (there.length) inner.append(draw("path", { class: one.kind === "area" ? "layer" : "band", d: `M${[...there, ...again].join("L")}Z`, style: `fill: ${one.colour}` }));
      });
      lines.forEach((one, i) => {
        const xs = one.points.map((p) => px(p[0])), ys = one.points.map((p) => py(level(one, p)));
        one.at = xs; one.up = ys;
        if (one.kind === "area") return;
        if (one.kind === "dots") {
          one.points.forEach((p, k) => {
            if (p.length > 2) inner.append(draw("line", { class: "line thin", x1: xs[k], x2: xs[k], y1: p[2] > 0 || !spec.log ? py(p[2]) : box.bottom, y2: py(p[3]), style: `stroke: ${one.colour}` }));
            inner.append(draw("circle", { class: "ring", cx: xs[k], cy: ys[k], r: one.sizes ? one.sizes[k] : 2.6, style: `stroke: ${one.colour}` }));
          });
          return;
        }
        const node = xs.length < 2 ? draw("circle", { class: "dot", cx: xs[0], cy: ys[0], r: 2.5, style: `fill: ${one.colour}` })
          : draw("path", { class: `line${one.thin ? " thin" : ""}`, d: path(xs, ys, box.left, box.right), style: `stroke: ${one.colour}`, "data-line": i });
        if (one.dash) node.setAttribute("stroke-dasharray", one.dash === true ? "5 3" : one.dash);
        if (xs.length) inner.append(node);
      });
      const over = draw("g", {}), now = draw("g", {}), covered = hidden(lines);
      const told = covered.join("; ");
      if (told) parts.push(draw("text", { x: box.left, y: height + 10, class: "covered" }, 6.2 * told.length < width - box.left ? told : `${covered.length} ${covered.length === 1 ? "line lies" : "lines lie"} on another`));
      svg.setAttribute("viewBox", `0 0 ${width} ${height + (told ? 16 : 0)}`);
      svg.replaceChildren(clipped, ...parts, inner, now, over);
      view = { box, lines, over, now, px, u0, u1, whole, scale, width };
      mark(moment);
    };
    // The reader's moment, a line where it is in view and not beyond all that was measured.
    const mark = (x) => {
      moment = x;
      if (!view) return;
      const u = x === null ? NaN : view.scale.to(x), [a, b] = view.whole;
      const there = u >= Math.max(a, view.u0) && u <= Math.min(b, view.u1);
      view.now.replaceChildren(...(there ? [draw("line", { class: "moment", x1: view.px(x), x2: view.px(x), y1: view.box.top, y2: view.box.bottom })] : []));
    };

    const inside = (event) => { const box = svg.getBoundingClientRect(); return [((event.clientX - box.left) / box.width) * view.width, ((event.clientY - box.top) / box.height) * view.width * (box.height / box.width)]; };
    const hide = () => { held = null; if (view) view.over.replaceChildren(); tip().hidden = true; };
    const best = (one, x) => { let found = -1; one.at.forEach((at, i) => { if (found < 0 || Math.abs(at - x) < Math.abs(one.at[found] - x)) found = i; }); return found; };
    const read = (x, y) => {
      const known = view.lines.filter((one) => one.at.length);
      if (!known.length) return;
      const places = known.map((one) => best(one, x));
      let near_ = 0;
      known.forEach((one, i) => { const far = (j) => Math.hypot(known[j].at[places[j]] - x, spec.all ? 0 : known[j].up[places[j]] - y); if (far(i) < far(near_)) near_ = i; });
      const chosen = known[near_], at = chosen.points[places[near_]][0], left = chosen.at[places[near_]];
      const listed = spec.all ? known.map((one, i) => [one, places[i]]).filter(([one, i]) => one.points[i][0] === at) : [[chosen, places[near_]]];
      view.over.replaceChildren(draw("line", { class: "crosshair", x1: left, x2: left, y1: view.box.top, y2: view.box.bottom }),
        ...(spec.all || chosen.kind ? [] : [draw("path", { class: "line held", d: path(chosen.at, chosen.up, view.box.left, view.box.right), style: `stroke: ${chosen.colour}` })]),
        ...listed.map(([one, i]) => draw("circle", { class: "dot", cx: one.at[i], cy: one.up[i], r: 3.2, style: `fill: ${one.colour}` })));
      const box = svg.getBoundingClientRect();
      show(box.left + (left / view.width) * box.width, box.top + 12, `${spec.short || spec.x || "at"} ${value(at)}`, listed.map(([one, i]) => [one.label, spread(one, one.points[i]), one.colour]));
      held = [left, chosen.up[places[near_]], near_, places[near_]];
    };
    const zoom = (factor, middle = (view.u0 + view.u1) / 2) => {
      const reach = (view.u1 - view.u0) / factor, [a, b] = view.whole;
      if (reach >= b - a) window_ = null;
      else { const left = Math.max(a, Math.min(b - reach, middle - (middle - view.u0) / factor)); window_ = [left, left + reach]; }
      hide(); redraw();
    };
    const at = (x) => view.u0 + ((x - view.box.left) / (view.box.right - view.box.left)) * (view.u1 - view.u0);
    let dragged = null;
    svg.addEventListener("pointerdown", (event) => { if (view && event.pointerType !== "touch") { dragged = inside(event)[0]; svg.setPointerCapture(event.pointerId); } });
    svg.addEventListener("pointermove", (event) => {
      if (!view) return;
      const [x, y] = inside(event);
      if (dragged !== null && Math.abs(x - dragged) > 4) { view.over.replaceChildren(draw("rect", { class: "chosen", x: Math.min(x, dragged), width: Math.abs(x - dragged), y: view.box.top, height: view.box.bottom - view.box.top })); return; }
      read(x, y);
    });
    svg.addEventListener("pointerup", (event) => {
      if (!view || dragged === null) return;
      const [x] = inside(event), ends = [at(Math.min(x, dragged)), at(Math.max(x, dragged))], far = Math.abs(x - dragged) > 8;
      dragged = null;
      if (far) { window_ = [Math.max(ends[0], view.whole[0]), Math.min(ends[1], view.whole[1])]; hide(); redraw(); }
      else if (spec.click && held) spec.click(view.scale.from(at(held[0])));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("dblclick", () => { window_ = null; hide(); redraw(); });
    svg.addEventListener("wheel", (event) => { if (!event.ctrlKey || !view) return; event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8, at(inside(event)[0])); }, { passive: false });
    svg.tabIndex = 0;
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      if (!view) return;
      if (event.key === "Escape") return hide();
      if (event.key === "+" || event.key === "=") return zoom(1.6);
      if (event.key === "-") return zoom(1 / 1.6);
      if (event.key === "0") { window_ = null; return redraw(); }
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const known = view.lines.filter((one) => one.at.length);
      if (!known.length) return;
      const one = known[held ? held[2] : 0], i = held ? Math.max(0, Math.min(one.at.length - 1, held[3] + by)) : by > 0 ? 0 : one.at.length - 1;
      read(one.at[i], one.up[i]);
    });
    redraw();
    let told = host.clientWidth;
    new ResizeObserver(() => { if (Math.abs(host.clientWidth - told) > 2) { told = host.clientWidth; requestAnimationFrame(() => redraw()); } }).observe(host);
    return { redraw, mark, zoom: (factor) => view && zoom(factor), whole: () => { window_ = null; redraw(); }, svg };
  };

  return { plot, draw, make, value, spread, swatch, show, axis, ticks };
})();
