"""The page's text face: the letters of DejaVu Sans that pages use, from matplotlib's own copy, inside the page.

matplotlib places every text of a figure by this face's widths: with another one titles are clipped and labels touch. Its licence
allows it (https://dejavu-fonts.github.io/License.html); the notice stays in the font's table of names.
"""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

NAME = "DejaVu Sans Report"
#: Weight in CSS → matplotlib's file.
_FILES = {400: "DejaVuSans.ttf", 700: "DejaVuSans-Bold.ttf"}
#: Latin with its accents, Greek, and what formulas and figures are written with. A letter that is missing comes from the system.
_LETTERS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),
    *range(0x391, 0x3CA),
    *range(0x2010, 0x2027),
    *range(0x2070, 0x209D),
)
_SIGNS = "ᵀ′→←↺∂∇∈∞√∑Σ−≈≠≤≥∥‖⟨⟩·×½▾▶❚◐ᵢⱼₖₜ"
#: Of the table of names: copyright, family, style, licence and where it stands.
_NAMES = [0, 1, 2, 13, 14]


@lru_cache(maxsize=1)
def text_face() -> str:
    """The ``@font-face`` rules, about 60 kB."""
    return "".join(
        f'@font-face{{font-family:"{NAME}";font-weight:{weight};src:url(data:font/woff;base64,{_subset(name)})}}'
        for weight, name in _FILES.items()
    )


def _subset(name: str) -> str:
    """The letters of a file as WOFF, in base64."""
    import logging

    import matplotlib
    from fontTools import subset

    options = subset.Options(
        flavor="woff",
        layout_features=["kern"],
        hinting=False,
        name_IDs=_NAMES,
        drop_tables=["FFTM", "DSIG"],
        notdef_outline=True,
    )
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    subsetter, written = subset.Subsetter(options), io.BytesIO()
    subsetter.populate(unicodes=[*_LETTERS, *map(ord, _SIGNS)])
    with subset.load_font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), options) as font:
        subsetter.subset(font)
        subset.save_font(font, written, options)
    return base64.b64encode(written.getvalue()).decode()
