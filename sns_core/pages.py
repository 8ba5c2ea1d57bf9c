"""Pages of HTML that are one file each: they contain their styles and pictures, and load nothing from elsewhere."""

import base64
from pathlib import Path

import jinja2

from sns_core.wording import count_of, digits, duration, interval, number, repaid, titled

FILTERS = (number, digits, duration, repaid, interval, count_of, titled)


def render_page(template: str, **values) -> str:
    """Return the page that a template of this package makes of the values. The page's styles are in `page.css`.

    All text is escaped. Raises jinja2.UndefinedError for a value that the template names and that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {each.__name__: each for each in FILTERS}
    return environment.get_template(template).render(**values)


def inline(content: bytes, kind: str) -> str:
    """Return a file's content as an address that holds the content itself; `kind`: such as image/png."""
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
