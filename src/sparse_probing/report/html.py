"""Fill the page template: all scripts, styles and data inside one file, no network."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from sparse_probing.files import write_text
from sparse_probing.results.run_folder import readable
from sparse_probing.views.dataset_view import dataset_charts
from sparse_probing.views.evidence_view import evidence_charts
from sparse_probing.views.run_view import run_view
from sparse_probing.views.visible import legible, visible

_VIEWS = resources.files("sparse_probing.views")
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
        template: its file name.
        charts: chart id in the page -> specification; null for a page without scripts.
        values: what else the template names.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
        loader=jinja2.FunctionLoader(lambda name: (_VIEWS / "templates" / name).read_text(encoding="utf-8")),
    )
    environment.filters["number"] = _two_digits
    environment.filters["visible"] = visible
    static = {name: (_VIEWS / "static" / name).read_text(encoding="utf-8") for name in (*SCRIPTS, "report.css")}
    if charts is not None:
        values |= {"charts": json_for_script(charts), "scripts": [static[name] for name in SCRIPTS]}
    return environment.get_template(template).render(style=static["report.css"], **values)


def write_report(folder: Path) -> Path:
    """Write `report.html` into a finished run folder and return its path.

    Raises:
        InputError: no finished run, or one that is damaged or was written by a newer version.
    """
    with readable(folder):
        view = run_view(folder)
        page = render("report.html", _charts(view), view=view, shade=token_shades)
    path = folder / "report.html"
    write_text(path, page)
    return path


def _shown(value: Any) -> Any:
    """Whatever a template prints, but markup of our own: bidirectional and other hidden characters can be seen."""
    return legible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _two_digits(value: float | None) -> str:
    text = "–" if value is None else f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def _charts(view: dict[str, Any]) -> dict[str, Any]:
    """Chart id in the page -> specification."""
    charts = dataset_charts(view["sheets"]) | evidence_charts(view)
    for c, category in enumerate(view["categories"]):
        charts[f"heatmap-{c}"] = category["heatmap"]
        for f, feature in enumerate(category["features"]):
            charts[f"curve-{c}-{f}"] = feature["curve"]
            charts[f"histogram-{c}-{f}"] = feature["histogram"]
    for c, category in enumerate(view["numbers"]):
        charts[f"number-heatmap-{c}"] = category["heatmap"]
        for f, number in enumerate(category["numbers"]):
            charts[f"number-curve-{c}-{f}"] = number["curve"]
            charts[f"number-profile-{c}-{f}"] = number["profile"]
    return charts


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
