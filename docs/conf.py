"""The documentation site, readable from its files without network:

python -m sphinx -W docs build/site
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
import site_pages

project = "nas_gym"
author = "The nas_gym developers"
version = release = installed("nas-gym")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**.ipynb_checkpoints"]
default_role = "py:obj"  # `name` in a docstring is code, and a link where the name is known

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Tokens", "Floats", "Env", "Index", "SpaceSpec")}
python_use_unqualified_type_names = True
napoleon_use_ivar = True  # attributes of a class stand with it, not as entries of their own
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the texts tell shapes

html_theme = "furo"
html_title = f"nas_gym {release}"
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Connects what Sphinx does not do by itself."""
    app.connect("builder-inited", lambda app: site_pages.write(Path(app.srcdir)))
    app.connect("source-read", link_the_readme)
    app.connect("doctree-read", unlink_folders)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", shorten_page, priority=400)  # before napoleon


def link_the_readme(app: Sphinx, docname: str, source: list[str]) -> None:
    """The README is the first page of the site."""
    depth = docname.count("/")
    source[0] = source[0].replace(f"]({'../' * (depth + 1)}README.md", f"]({'../' * depth}index.md")


def unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """A link to a folder of the repository, which the site does not have, is its text alone."""
    here = Path(app.srcdir, app.env.docname).parent
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["reftype"] == "myst" and here.joinpath(link["reftarget"]).is_dir():
            link.replace_self(link.children)


def shorten_signature(
    app: Sphinx, what: str, name: str, item: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The names of types as the code has them."""

    def plain(text: str | None) -> str | None:
        named = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text or "")
        return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[([\w.]+)\]\]", r"NDArray[\1]", named) or None

    return plain(signature), plain(returns)


def shorten_page(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """The docstring of an environment is its page, in Markdown: the reference has the summary alone."""
    headings = [number for number, line in enumerate(lines) if line.startswith("## ")]
    if headings:
        lines[headings[0] :] = ["The pages of the environments tell the rest.", ""]
