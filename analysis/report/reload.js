// While the run goes on the page reads itself anew. The address keeps moment and figure; place, theme and axis are kept here.
(() => {
  const KEY = "kerneltrack", root = document.documentElement, every = Number(document.body.dataset.reload), scale = document.getElementById("scale");
  const recall = () => { try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; } };
  const keep = (what) => { try { sessionStorage.setItem(KEY, JSON.stringify(what)); } catch { /* a browser may refuse: then the page opens at its top */ } };
  const told = recall();
  if (told && told.path === location.pathname) {
    keep(null);
    if (told.theme) root.dataset.theme = told.theme;
    if (scale && told.scale) { scale.value = told.scale; scale.dispatchEvent(new Event("change")); }
    addEventListener("load", () => scrollTo({ top: told.top, behavior: "instant" }));
  }
  if (every) setTimeout(() => {
    keep({ path: location.pathname, top: scrollY, theme: root.dataset.theme, scale: scale && scale.value });
    location.reload();
  }, 1000 * every);
})();
