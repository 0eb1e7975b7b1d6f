// To the paper: each figure as SVG, PNG and CSV from what the page itself holds, and the line that draws it from the archive.
const save = (() => {
  const { draw, make } = plots;
  const DOTS = 300 / 72; // 300 dots an inch, of a drawing whose unit is a point

  // A file has no page to ask what --ink is: it has the values of the light page, whatever theme is on.
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]), light = new Map();
  rules.filter((rule) => rule.selectorText === ":root").forEach(({ style }) => [...style].forEach((name) => light.set(name, style.getPropertyValue(name).trim())));
  const mixed = (text) => {
    const context = make("canvas").getContext("2d");
    context.fillStyle = text; context.fillRect(0, 0, 1, 1);
    return `rgb(${[...context.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ")})`;
  };
  const fixed = (text) => text.replace(/var\((--[\w-]+)\)/g, (_, name) => light.get(name)).replace(/color-mix\([^)]*\)/g, mixed);
  const ofPlots = () => rules.filter((rule) => rule.selectorText && rule.selectorText.startsWith("svg.plot ")).map((rule) => fixed(rule.cssText)).join("\n");

  // The letters travel with the file: their places were measured with this face, which no other machine need have.
  const faces = rules.filter((rule) => rule instanceof CSSFontFaceRule).map((rule) => rule.cssText).join("\n");

  const extent = (svg) => svg.getAttribute("viewBox").split(" ").map(Number).slice(2);
  // A copy of what is drawn, less what only stands there while one reads.
  const copy = (svg, viewBox) => {
    const made = svg.cloneNode(true);
    made.querySelectorAll(".moment, .crosshair, .cell, .chosen").forEach((node) => node.remove());
    made.removeAttribute("style"); made.removeAttribute("tabindex");
    made.setAttribute("viewBox", viewBox || svg.getAttribute("viewBox"));
    const [width, height] = extent(made);
    made.setAttribute("width", width); made.setAttribute("height", height);
    [made, ...made.querySelectorAll("*")].forEach((node) => [...node.attributes].forEach(({ name, value }) => { if (/var\(|color-mix/.test(value)) node.setAttribute(name, fixed(value)); }));
    return made;
  };
  // Plots of the page stand over each other, each with its title and what its colours mean.
  const stacked = (parts) => {
    const whole = draw("svg", { class: "plot" }), width = Math.max(...parts.map(({ svg }) => extent(svg)[0]));
    let y = 6;
    whole.append(draw("style", {}, ofPlots()));
    parts.forEach(({ title, key, svg }) => {
      if (title) whole.append(draw("text", { x: 8, y: (y += 14), style: "font-weight: 600" }, title));
      key.forEach(({ colour, label, dash, kind }) => {
        y += 15;
        const sign = kind === "dots" ? draw("circle", { cx: 17, cy: y - 4, r: 3.5, fill: "none", stroke: fixed(colour), "stroke-width": 1.2 })
          : draw("line", { x1: 8, x2: 26, y1: y - 4, y2: y - 4, stroke: fixed(colour), "stroke-width": kind === "area" ? 9 : 2, "stroke-dasharray": dash === true ? "5 3" : dash || "none" });
        whole.append(sign, draw("text", { x: 32, y }, label));
      });
      const made = copy(svg);
      made.setAttribute("y", (y += 4)); y += extent(svg)[1] + 8;
      whole.append(made);
    });
    whole.setAttribute("viewBox", `0 0 ${width} ${y}`); whole.setAttribute("width", width); whole.setAttribute("height", y);
    return whole;
  };
  const text = (svg) => { svg.prepend(draw("style", {}, faces)); return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(svg)}\n`; };
  const png = async (svg) => {
    const image = new Image(), canvas = make("canvas"), context = canvas.getContext("2d");
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text(svg))}`;
    await image.decode();
    [canvas.width, canvas.height] = extent(svg).map((length) => Math.round(length * DOTS));
    context.fillStyle = "white"; context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };
  const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = (rows) => rows.map((row) => `${row.map((value) => field(value === null || value === undefined ? "" : String(value))).join(",")}\r\n`).join("");

  const keep = (blob, name) => {
    const link = make("a"), url = URL.createObjectURL(blob);
    link.href = url; link.download = name; link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };

  // The menu of one figure. what: { name, title, drawn: () => svg, rows: () => [[…]] or null, command: text or "" }.
  const offer = (figure, { name, title, drawn, rows, command }) => {
    const menu = make("details"), open = make("summary", "Save"), list = make("div"), said = make("output");
    menu.className = "save"; menu.name = "save";
    open.setAttribute("aria-label", `Save: ${title}`);
    const button = (label, act) => {
      const made = make("button", label);
      made.type = "button"; made.className = "wide"; made.setAttribute("aria-label", `${label}: ${title}`);
      made.addEventListener("click", act); list.append(made);
    };
    const show = (words, code) => { const line = make("code", code); said.replaceChildren(words, line); return line; };
    button("SVG", () => keep(new Blob([text(drawn())], { type: "image/svg+xml" }), `${name}.svg`));
    button("PNG", async () => {
      try { keep(await png(drawn()), `${name}.png`); } catch (error) { show("This browser cannot paint it: ", String(error)); }
    });
    if (rows) button("CSV", () => keep(new Blob([csv(rows())], { type: "text/csv" }), `${name}.csv`));
    if (command) button("kerneltrack plot", async () => {
      try { await navigator.clipboard.writeText(command); show("Copied: ", command); } catch {
        const range = document.createRange(); // a browser may refuse, or have no clipboard for a file: then it is there to be copied
        range.selectNodeContents(show("Copy this line: ", command));
        getSelection().removeAllRanges(); getSelection().addRange(range);
      }
    });
    list.append(said); menu.append(open, list);
    menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; open.focus(); } });
    figure.querySelector(".heading").append(menu);
  };

  return { offer, copy, stacked };
})();
