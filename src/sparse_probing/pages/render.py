"""Fill the page template: all scripts, styles and data inside one file, no network."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jinja2

from sparse_probing.pages.visible import legible, visible

_ROOT = resources.files("sparse_probing")
"""Templates are named from here."""
SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-embed.min.js", "report.js")


def json_for_script(value: Any) -> str:
    """JSON that may stand inside a script element: no `<`, so no tag can begin or end in it. Hidden characters are shown."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    for character in {character for character in text if not character.isascii()} | {"\x7f"}:
        text = text.replace(character, visible(character).replace("\\", "\\\\"))
    return text


def render(template: str, charts: dict[str, Any] | None = None, **values: Any) -> str:
    """A page with everything inside.

    Args:
        template: its path in the package.
        charts: chart id in the page -> specification; null for a page without scripts.
        values: what else the template names.
    """
    static = {
        name: (_ROOT / "pages" / "static" / name).read_text(encoding="utf-8") for name in (*SCRIPTS, "report.css")
    }
    if charts is not None:
        values |= {"charts": json_for_script(charts), "scripts": [static[name] for name in SCRIPTS]}
    return environment().get_template(template).render(style=static["report.css"], **values)


def environment() -> jinja2.Environment:
    """Templates by their path in the package; what they print is escaped, and hidden characters in it are shown."""
    made = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
        loader=jinja2.FunctionLoader(lambda name: (_ROOT / name).read_text(encoding="utf-8")),
    )
    made.filters["number"] = _two_digits
    made.filters["visible"] = visible
    made.globals["shade"] = token_shades
    return made


def _shown(value: Any) -> Any:
    """Whatever a template prints, but markup of our own: bidirectional and other hidden characters can be seen."""
    return legible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _two_digits(value: float | None) -> str:
    text = "–" if value is None else f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def token_shades(example: dict[str, Any], sign: int, largest: float) -> list[dict[str, Any]]:
    """Tokens with a shade from 0 to 9, relative to the largest activation among the feature's examples."""
    return [
        {
            "text": text,
            "value": value,
            "shade": min(9, max(0, round(9 * value * sign / largest))) if largest > 0 else 0,
            "in_row": example["first"] <= i < example["last"],
        }
        for i, (text, value) in enumerate(zip(example["tokens"], example["activations"], strict=True))
    ]
