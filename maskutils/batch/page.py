"""One page about a profile, for a reviewer: a file that opens without a server, a network or this package."""

import base64
import json
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from maskutils.batch import plan
from maskutils.batch.printed import duration
from maskutils.batch.profile import load_profile
from maskutils.batch.status import few, lacking, parameters_of, statuses
from maskutils.core import paths
from maskutils.core.files import DamagedFile, read_json, write_atomically
from maskutils.core.progress import bar
from maskutils.results.manifest import MANIFEST

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ profile }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #8886; text-align: left }
img { max-width: 100%; background: white } pre { overflow-x: auto }
</style></head><body>
<h1>{{ profile }}</h1><p>{{ description }}</p>
<h2>What made it</h2>
<table>{% for name, value in made.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
{% if figures %}<h2>Figures</h2>{% endif %}
{% for name, data in figures.items() %}<figure>
<img alt="{{ name }}" src="data:image/png;base64,{{ data }}">
<figcaption>{{ name }}</figcaption></figure>{% endfor %}
{% if tables %}<h2>Tables</h2>{% endif %}
{% for name, html in tables.items() %}<h3>{{ name }}</h3>{{ html | safe }}{% endfor %}
<h2>Runs</h2>
<table><tr><th>run</th><th>status</th><th>seconds</th><th>comes after</th><th>why it would run</th></tr>
{% for run, state in runs.items() %}<tr><td>{% if state.page %}<a href="{{ state.page }}">{{ run }}</a>{% else %}{{ run }}{% endif %}
<details><summary>parameters</summary><pre>{{ state.parameters }}</pre></details></td>
<td>{{ state.status }}</td><td>{{ state.seconds }}</td><td>{{ state.after | join(", ") }}</td>
<td>{{ state.why }}{% if state.error %}<pre>{{ state.error }}</pre>{% endif %}</td></tr>{% endfor %}</table>
</body></html>
"""


def write_page(profile: str) -> Path:
    """Write results/<profile>/report/index.html and beside it each executed notebook as a page; returns the former.

    It shows what made the results, their figures and tables, and for every run its status, parameters and notebook. Runs that are
    not done are shown as such, those that failed with their error and the notebook that shows it.
    """
    folder, runs = paths.results_dir(profile) / "report", plan.make_plan(profile)
    found, rows = statuses(profile, runs), {}
    for run in bar(runs, "notebooks", "notebook"):
        kept = (paths.runs_dir(profile) / f"{run.id}{kind}.ipynb" for kind in ("", ".failed"))
        executed = next((file for file in kept if file.is_file()), None)
        rows[run.id] = found[run.id] | {
            "page": _notebook(executed, folder / "notebooks" / f"{run.id}.html") if executed else "",
            "parameters": json.dumps(parameters_of(profile, run), indent=1),
        }
    values = {"profile": Path(profile).stem, "description": load_profile(profile).description, "runs": rows}
    values |= {"made": _made(profile), "figures": _figures(profile), "tables": _tables(profile)}
    html = Environment(autoescape=True).from_string(TEMPLATE).render(values)
    write_atomically(folder / "index.html", html.encode())
    return folder / "index.html"


def _notebook(executed: Path, page: Path) -> str:
    """Write an executed notebook as a page, which fetches nothing, so that formulas stay TeX; returns its address beside the report."""
    exporter: Any = HTMLExporter
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise DamagedFile(
            f"{executed} is damaged ({type(error).__name__}); delete it and run again, which makes it anew"
        ) from None
    html, _ = exporter(require_js_url="", mathjax_url="").from_notebook_node(notebook)
    write_atomically(page, html.encode())
    return f"{page.parent.name}/{page.name}"


def _made(profile: str) -> dict[str, Any]:
    """What the manifest says of how the results were made; empty before there are any."""
    file = paths.results_dir(profile) / MANIFEST
    if not file.is_file():
        lacks = few(lacking(profile))
        return {
            "results": f"the records were joined without those of {lacks}" if lacks else "not all runs are done yet"
        }
    manifest = read_json(file)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    return {
        "commit": manifest.get("commit"),
        "versions": versions,
        "cores": manifest.get("cores"),
        "time of all notebooks": duration(manifest.get("kernel_seconds", 0)),
    }


def _figures(profile: str) -> dict[str, str]:
    folder = paths.figures_dir(profile)
    return {file.stem: base64.b64encode(file.read_bytes()).decode() for file in sorted(folder.glob("*.png"))}


def _tables(profile: str) -> dict[str, str]:
    files = sorted(paths.results_dir(profile).glob("*.md"))
    return {file.stem: markdown2html(file.read_text(encoding="utf-8")) for file in files}
