// The page of many runs: every course from the one block of numbers, coloured, picked, averaged and scaled as the reader asks.
(() => {
  const $ = (id) => document.getElementById(id), { plot, make } = plots;
  const data = JSON.parse($("runs").textContent), runs = data.runs, live = $("live");
  const theme = $("theme"), root = document.documentElement;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  $("still").hidden = true; // what is printed without a script
  live.hidden = false;

  // What is asked for stands in the address, so that a link shows the same.
  const asked = { by: data.opens, over: "steps", scale: "", means: "1", off: new Set() };
  const told = new URLSearchParams(location.hash.slice(1));
  ["by", "over", "scale", "means"].forEach((key) => { if (told.has(key)) asked[key] = told.get(key); });
  (told.get("off") || "").split(".").forEach((i) => { if (runs[i]) asked.off.add(Number(i)); });
  const remember = () => {
    const said = new URLSearchParams({ by: asked.by, over: asked.over, scale: asked.scale, means: asked.means });
    if (asked.off.size && asked.off.size < 400) said.set("off", [...asked.off].join("."));
    history.replaceState(null, "", `#${said}`);
  };

  const everyone = { name: "", values: ["all runs"], of: runs.map(() => 0), ordered: false };
  const apart = { name: "run", values: runs.map((run) => run.name), of: runs.map((run, i) => (run.of >= 0 ? run.of : i)), ordered: true };
  const keys = [...data.keys, everyone, apart];
  const key = () => keys.find((one) => one.name === asked.by) || everyone;
  // Unordered values have a colour each while there are enough of them; ordered ones stand between two steps of their family.
  const colour = (one, i) => {
    const count = one.values.length;
    if (!one.ordered && count <= 6) return `var(--category-${i + 1})`;
    const place = count > 1 ? (7 * i) / (count - 1) : 3, low = Math.floor(place), share = Math.round(100 * (place - low));
    return share ? `color-mix(in oklab, var(--order-${low + 2}) ${share}%, var(--order-${low + 1}))` : `var(--order-${low + 1})`;
  };

  const points = (run, q) => run[asked.over].map((x, i) => [x, run.values[q][i]]).filter(([, y]) => y !== null);
  // Mean and standard deviation where every one of at least six runs was measured; nothing is interpolated.
  const averaged = (members, q) => {
    if (asked.means !== "1" || members.length < data.band) return null;
    const known = members.map((i) => { const found = new Map(); points(runs[i], q).forEach(([x, y]) => { if (!found.has(x)) found.set(x, y); }); return found; });
    const common = [...known[0].keys()].filter((x) => known.every((one) => one.has(x))).sort((a, b) => a - b);
    if (!common.length) return null;
    const found = common.map((x) => {
      const values = known.map((one) => one.get(x)), mean = values.reduce((a, b) => a + b) / values.length;
      return [x, mean, Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1))];
    });
    return { mean: found.map(([x, m]) => [x, m]), band: found.map(([x, m, s]) => [x, m - s, m + s]) };
  };
  const spec = (q) => {
    const told = data.quantities[q], one = key(), lines = [], bands = [], marks = new Set();
    one.values.forEach((text, v) => {
      const shown = runs.map((_, i) => i).filter((i) => one.of[i] === v && !asked.off.has(i)), painted = colour(one, v);
      const members = shown.filter((i) => !runs[i].control), both = averaged(members, q);
      if (both) {
        bands.push({ colour: painted, points: both.band });
        lines.push({ label: `${one.name} ${text}, mean of ${members.length}`, colour: painted, points: both.mean, band: both.band });
      }
      shown.forEach((i) => {
        if (both && !runs[i].control) return;
        lines.push({ label: runs[i].name, colour: painted, dash: runs[i].control, thin: true, points: points(runs[i], q) });
      });
      if (asked.over === "steps") shown.forEach((i) => runs[i].changes.forEach((step) => marks.add(step)));
    });
    return { label: told.title, x: asked.over === "steps" ? "training step" : "flow time", short: asked.over === "steps" ? "step" : "flow time",
      scale: asked.scale || preferred, log: told.log, marks: marks.size <= 8 ? [...marks].sort((a, b) => a - b) : [], lines, bands };
  };
  const all = runs.flatMap((run) => run.steps).sort((a, b) => a - b), changed = runs.some((run) => run.changes.length);
  const preferred = all.length > 4 && all[all.length >> 1] < 0.1 * all[all.length - 1] ? (changed ? "anew" : "log") : "linear";

  // Plots are drawn when they come into view: two hundred runs times two dozen quantities at once would keep the reader waiting.
  const made = new Map();
  const watcher = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
    if (isIntersecting) drawn(target);
  }), { rootMargin: "400px" });
  const drawn = (host) => { if (!made.has(host)) made.set(host, plot(host, spec(Number(host.dataset.quantity)))); return made.get(host); };
  const hosts = [...live.querySelectorAll(".host")];
  const legend = () => {
    const one = key(), shown = one.values.map((text, i) => [text, i]).filter(([, i]) => one.of.some((v, run) => v === i && !asked.off.has(run)));
    const entries = shown.length > 24 ? [shown[0], shown[shown.length >> 1], shown[shown.length - 1]] : shown;
    $("legend").replaceChildren(...entries.map(([text, i]) => {
      const item = make("span"), mark = make("i"), count = one.of.filter((v, run) => v === i && !asked.off.has(run) && !runs[run].control).length;
      mark.style.background = colour(one, i);
      item.append(mark, `${one.name && one !== apart ? `${one.name} ` : ""}${text}${count > 1 ? ` (${count})` : ""}`);
      return item;
    }), ...(runs.some((run, i) => run.control && !asked.off.has(i)) ? [(() => { const item = make("span"), mark = make("i"); mark.className = "dashed"; item.append(mark, "control"); return item; })()] : []));
    $("shown").textContent = `${runs.length - asked.off.size} of ${runs.length} shown`;
  };
  const redraw = () => { legend(); made.forEach((one, host) => one.redraw(spec(Number(host.dataset.quantity)))); };

  const choice = (id, name) => {
    const field = $(id);
    field.value = asked[name] || (name === "scale" ? preferred : "");
    if (field.selectedIndex < 0) field.selectedIndex = 0;
    asked[name] = name === "scale" && !asked.scale ? "" : field.value;
    field.addEventListener("change", () => { asked[name] = field.value; remember(); redraw(); });
  };
  choice("by", "by"); choice("scale", "scale");
  if ($("over")) choice("over", "over"); else asked.over = "steps";
  const means = $("means");
  means.checked = asked.means === "1";
  means.addEventListener("change", () => { asked.means = means.checked ? "1" : "0"; remember(); redraw(); });

  // The picker: one box a run, and those that a word finds.
  const boxes = [...document.querySelectorAll("#picker input[type=checkbox]")], find = $("find");
  boxes.forEach((box, i) => {
    box.checked = !asked.off.has(i);
    box.addEventListener("change", () => { asked.off[box.checked ? "delete" : "add"](i); remember(); redraw(); });
  });
  const found = () => boxes.map((box, i) => i).filter((i) => !boxes[i].closest("label").hidden);
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    boxes.forEach((box) => { const label = box.closest("label"); label.hidden = !words.every((word) => label.textContent.toLowerCase().includes(word)); });
  });
  const set = (on) => { found().forEach((i) => { boxes[i].checked = on; asked.off[on ? "delete" : "add"](i); }); remember(); redraw(); };
  $("all").addEventListener("click", () => set(true));
  $("none").addEventListener("click", () => set(false));

  // What is on the page goes to the paper: the legend's entries, and the lines as they are drawn.
  const entries = () => [...$("legend").children].map((item) => (item.firstChild.className === "dashed" ? { colour: "var(--muted)", label: item.textContent, dash: true } : { colour: item.firstChild.style.background, label: item.textContent }));
  const table = ({ short, lines, bands }) => [
    ["run", short, "value", ...(bands.length ? ["low", "high"] : [])],
    ...lines.flatMap(({ label, points, band }) => points.map(([x, y], i) => [label, x, y, ...(bands.length ? (band ? band[i].slice(1) : ["", ""]) : [])])),
  ];
  legend();
  hosts.forEach((host) => {
    watcher.observe(host);
    const [closer, away, back] = host.parentElement.querySelectorAll(".tools button");
    closer.addEventListener("click", () => made.get(host)?.zoom(1.6));
    away.addEventListener("click", () => made.get(host)?.zoom(1 / 1.6));
    back.addEventListener("click", () => made.get(host)?.whole());
    const q = Number(host.dataset.quantity), told = data.quantities[q];
    save.offer(host.parentElement, { name: told.name, title: told.title, rows: () => table(spec(q)), drawn: () => save.stacked([{ title: told.title, key: entries(), svg: drawn(host).svg }]) });
  });
  addEventListener("beforeprint", () => hosts.forEach(drawn));
})();
