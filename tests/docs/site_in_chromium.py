"""The built site in headless Chromium, from its files, with every name of a host unresolvable."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SITE = Path(os.environ.get("KERNELTRACK_SITE", ROOT / "build" / "site")).resolve()

#: What a page measures of itself once it is drawn, written into the page as JSON.
READER = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = {};
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name).filter((url) => !url.startsWith("file:"));
  seen.fractions = [...document.querySelectorAll("mfrac")].map((f) => {
    const [above, below] = [...f.children].map((part) => part.getBoundingClientRect());
    return above.height > 0 && below.height > 0 && above.bottom <= below.top + 1;
  });
  seen.formulas = document.querySelectorAll("math").length;
  seen.found = [...document.querySelectorAll("#search-results ul.search li a")].map((a) => [a.textContent, a.getAttribute("href")]);
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.broken = [...document.images].filter((image) => !image.naturalWidth).map((image) => image.getAttribute("src"));
  seen.ground = getComputedStyle(document.body).backgroundColor;
  const out = document.createElement("pre");
  out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 1500));
</script>
"""


def linked_copy(folder, extra=""):
    """The site with the reader in every page; all other files are links to the built ones."""
    copy = folder / "site"
    shutil.copytree(SITE, copy, copy_function=os.symlink)
    for page in copy.rglob("*.html"):
        text = page.read_text(encoding="utf-8").replace("</body>", extra + READER + "</body>")
        page.unlink()
        page.write_text(text, encoding="utf-8")
    return copy


def visit(page, folder, query="", *, width=1200):
    """(what the page measured, the addresses that the browser asked for beyond files) of a visit."""
    log = folder / "net.json"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--log-net-log={log}",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},900",
        "--virtual-time-budget=6000",
        "--dump-dom",
        page.as_uri() + query,
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', child.stdout, re.DOTALL)
    assert found, child.stderr[-2000:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")), asked_for(log)


def asked_for(log):
    """Addresses in the browser's own log of the network."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return sorted(set(re.findall(r'"url":"((?:https?|wss?):[^"]*)"', text)))
