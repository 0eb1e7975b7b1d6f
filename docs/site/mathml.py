"""Formulas become MathML while the site is built: no script, no font and no request is left for the reader's browser.

docutils brings the converter. What it does not know fails the build.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError


def converted(formula: str, *, block: bool) -> str:
    """A formula of TeX as MathML, in one line.

    Raises:
        ExtensionError: the converter does not understand it.
    """
    try:
        lines = tex2mathml(formula, as_block=block).splitlines()
    except (MathError, SyntaxError) as error:
        raise ExtensionError(f"the formula {formula!r} has no MathML: {error}") from error
    return "".join(line.strip() for line in lines)


def inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(converted(node.astext(), block=False))
    raise nodes.SkipNode


def displayed(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{converted(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
