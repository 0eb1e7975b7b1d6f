// Long tables: folded ones are open on paper, and definitions are found by a word.
(() => {
  const folds = [...document.querySelectorAll("details.fold")];
  let closed = [];
  addEventListener("beforeprint", () => { closed = folds.filter((fold) => !fold.open); closed.forEach((fold) => { fold.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));

  const table = document.querySelector("table.definitions"), rows = [...table.querySelectorAll("tbody tr")], { make } = plots;
  const line = make("p"), label = make("label", "Find a definition "), find = make("input"), said = make("output");
  line.className = "choices"; find.type = "search"; find.id = "find-definition"; find.autocomplete = "off";
  label.append(find); line.append(label, said);
  (table.closest("details") || table.parentElement).before(line);
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    said.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
    if (words.length && table.closest("details")) table.closest("details").open = true;
  });
})();
