"""Fills the blocks of README.md and of pages under docs/ with tables and sentences made from the committed records; draws the glossary."""

import html
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from maskutils.core import paths
from maskutils.core.approaches import names, the
from maskutils.core.files import read_json
from maskutils.core.storage import VALUE
from maskutils.results import analysis, choice_tables, comparisons, fronts, plots, report, verdicts
from maskutils.results.claims import verify
from maskutils.results.findings import findings
from maskutils.results.records import load_records
from maskutils.results.wording import points
from tools import tables

ROOT = paths.PACKAGE.parent
PAGES = ("README.md", "docs/photographs.md", "docs/results.md", "docs/guides/leaks.md")
FILES = tuple(ROOT / page for page in PAGES)
NOTEBOOK = ROOT / "notebooks" / "17_leaks.ipynb"
HEADINGS = {
    "held": "held (of all parameters)",
    "change": "largest change of a held weight",
    "leak_cost": "source accuracy that the leak costs",
    "source_acc": "source accuracy",
    "target_acc": "target accuracy",
    "ms": "ms a step",
}

DETAILS = ["mean rank", "corrected p (Holm)", "by pair", "random effects"]  # results/<profile>/families.md has them

DROPS = (0.01, 0.02, 0.05, 0.1)  # source accuracy that a reader may lose
COMPARED = ("baselines", "families", "families_known", "storage", "budgets", "rewinding", "detectable")
PHOTOS = (
    "brief",
    "findings",
    "choices",
    "headline",
    "baselines",
    "families",
    "families_known",
    "storage",
    "budgets",
    "detectable",
    "convergence",
    "verdicts",
    "evidence",
    "cost",
)
OBJECTS = ("tradeoff", "headline", "storage", "cost")  # two seeds: no findings


def fill_readme(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with `blocks[name]` in place of whatever stands between `<!-- name -->` and `<!-- /name -->`.

    Raises `ValueError` for a name without these two markers in `text`.
    """
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"no {begin} ... {end} in the text; write both markers where the block belongs")
        text = text[: text.index(begin) + len(begin)] + f"\n{block.strip()}\n" + text[text.index(end) :]
    return text


def fill_files(files: Iterable[Path], blocks: Mapping[str, str]) -> dict[Path, str]:
    """The texts of `files` with `blocks` in place, as `fill_readme` does it. Nothing is written.

    Raises `ValueError` for a block that does not stand exactly once in all files together.
    """
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    for name, block in blocks.items():
        homes = [file for file, text in texts.items() for _ in range(text.count(f"<!-- {name} -->"))]
        if len(homes) != 1:
            where = " and ".join(str(file) for file in homes) or "no file"
            raise ValueError(
                f"<!-- {name} --> stands in {where}; write it once, in one of {', '.join(map(str, texts))}"
            )
        texts[homes[0]] = fill_readme(texts[homes[0]], {name: block})
    return texts


def all_blocks() -> dict[str, str]:
    """The blocks of all pages: digits, photographs and objects ("photos:" and "modality:" before their names), and the audit."""
    shown = {"photos": PHOTOS, "modality": OBJECTS}
    beside = {f"{of}:{name}": made for of in shown for name, made in readme_blocks(of, 0.3, shown[of]).items()}
    control = [load_records(profile) for profile in ("photos", "photos_longer")]
    beside["photos:alike"] = tables.trained_alike(*control)
    beside["photos:longer"] = report.markdown(tables.trained_longer(*control))
    steady = choice_tables.steadiness(load_records("study"), DROPS)
    return readme_blocks() | beside | {"answers": answers(), "steadiness": steady, "leaks": audit_table()}


def answers() -> str:
    """What is best in each case, on digits and on photographs."""
    shown = {"digits": load_records("study"), "photographs": load_records("photos")}
    begun = {name: points(rows.groupby("pair")["source_acc_before"].mean().mean()) for name, rows in shown.items()}
    table = pd.DataFrame(
        {f"{name} (source before: {begun[name]})": tables.answers(rows) for name, rows in shown.items()}
    )
    return report.markdown(table.rename_axis("task").reset_index())


def readme_blocks(profile: str = "study", density: float = 0.1, shown: Sequence[str] = ()) -> dict[str, str]:
    """The blocks by name, from the committed records and manifest of `profile`; masks stand there with `density`.

    `shown` are those that are wanted, by default all: some take seconds. A block whose records are missing says so.
    """
    records, manifest = load_records(profile), read_json(paths.results_dir(profile) / "manifest.json")
    judged = cache(lambda: [v for v in verify(records) if v.passed is not None])
    found = cache(lambda: findings(records))
    makers: dict[str, Callable[[], str]] = {
        "findings": lambda: f"{found()[0]}\n{verdicts.failures(judged())}",
        "brief": lambda: found()[1],
        "tradeoff": lambda: report.tradeoff_findings(records, density),
        "headline": lambda: report.markdown(report.headline(records, density)),
        "choices": lambda: report.markdown(choices(records)),
        "verdicts": lambda: report.markdown(verdicts.summary(judged())),
        "evidence": lambda: "\n\n".join(folded(v) for v in judged()),
        "cost": lambda: cost(records, manifest),
        "convergence": lambda: comparisons.convergence(records),
    }
    if the("yardstick") in set(records["approach"]):
        makers |= compared(records)
    else:
        none = f"The records of `{profile}` hold no baselines with their interpolations; those of `study` do."
        makers |= dict.fromkeys(COMPARED, lambda: none)
    return {name: makers[name]() for name in shown or makers}


def compared(records: pd.DataFrame) -> dict[str, Callable[[], str]]:
    """What makes each block of `COMPARED`."""

    def families(reading: str) -> pd.DataFrame:
        areas = report.plain(fronts.hypervolumes(records, reading))
        return report.against(areas, the("yardstick")).drop(columns=DETAILS, errors="ignore")

    return {
        "detectable": lambda: comparisons.detectable(report.plain(fronts.hypervolumes(records)), the("yardstick")),
        "baselines": lambda: report.markdown(tables.best_settings(records)),
        "families": lambda: report.markdown(families("full")),
        "families_known": lambda: report.markdown(families("known")),
        "storage": lambda: report.markdown(comparisons.storage(records)),
        "budgets": lambda: report.markdown(comparisons.budgets(records)),
        "rewinding": lambda: report.markdown(tables.rewinding(records)),
    }


def choices(records: pd.DataFrame, drops: Sequence[float] = DROPS) -> pd.DataFrame:
    """The choice for each of `drops`; with the task known also for who can store at most one bit a weight, where that differs."""
    known, unknown = (choice_tables.choices(records, drops, tasks=[task]) for task in (True, False))
    second = records[analysis.of_second_network(records)]
    bits = analysis.stored_bits(second).max() / VALUE  # nan without a second network
    few = known if math.isnan(bits) else choice_tables.choices(records, drops, tasks=[True], max_bits=bits)
    if few["choose"].tolist() != known["choose"].tolist():
        known = pd.concat([known, few.assign(need=few["need"] + f", store at most {bits / 1e3:,.0f} kbit")])
    return pd.concat([known, unknown])


def folded(verdict: verdicts.Verdict) -> str:
    """What stands behind a verdict, as Markdown that a page shows when its line is clicked."""
    return f"<details><summary>{verdict.word}: {verdict.claim}</summary>\n\n{verdicts.behind(verdict)}\n\n</details>"


def cost(records: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Sentences on what the records took: how many transfers, seconds and minutes, and on what machine."""
    transfers = records[records["protocol"] != the("untrained")]
    trained = transfers[(transfers["alpha"] == 1) & ~transfers["rewound"].astype(bool)]
    made, one, steps = manifest["versions"], records.iloc[0], records["target_steps"].dropna()
    on_target = f"{steps.min():g}" + (f" to {steps.max():g}" if steps.nunique() > 1 else "")
    pairs, seeds = (f"{n} {of}{'s' * (n != 1)}" for of in ("pair", "seed") for n in [records[of].nunique()])
    free = len(transfers) - len(trained)
    also = f" {free:,} more records are of interpolated or rewound networks, which took no training." if free else ""
    # a mask that came from the cache took no longer than a transfer without one
    prepared = trained.loc[trained["approach"] == the("free"), "mask_seconds"].median()
    learnt = trained.loc[trained["method"].isin(names("mask")), "mask_seconds"]
    learnt = learnt[learnt > 10 * prepared]
    minutes = trained[["seconds", "mask_seconds"]].sum().sum() / 60
    mask = f", learning a mask that was in no cache {learnt.median():.1f} s" if len(learnt) else ""
    return (
        f"The `{manifest['profile']}` profile is {len(trained):,} transfers over {pairs} and {seeds}.{also} The source is "
        f"trained for {one['source_steps']} steps, a mask for {records['mask_steps'].max():g} and the target for "
        f"{on_target}. A transfer took {trained['seconds'].median():.1f} s (median){mask}, all transfers and masks "
        f"{minutes:.0f} minutes of one core. The last runs of the notebooks took {manifest['kernel_seconds'] / 60:.0f} "
        f"minutes. That is a sum over notebooks, of which up to {manifest['cores']} ran side by side on {manifest['cores']} cores, and "
        f"without what they found in caches (Python {made['python']}, torch {made['torch']})."
    )


def audit_table(notebook: Path = NOTEBOOK) -> str:
    """The audit that stands in the committed notebook, a row for each recipe. Raises `ValueError` if it holds no such table."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = ["".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", [])]
    table = next((t for t in shown if ">leak_cost<" in t), None)
    if table is None:
        raise ValueError(f"{notebook} shows no audit; execute it with: make notebooks")
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    rows = [[html.unescape(cell).strip() for cell in row] for row in rows]
    head = [HEADINGS.get(cell, cell) for cell in rows[0]]
    lines = [head, ["---"] * len(head), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    for file, text in fill_files(FILES, all_blocks()).items():
        file.write_text(text, encoding="utf-8")
    for draw in (plots.two_readings, plots.what_is_stored, plots.hypervolume_drawn):
        plots.save_figure(draw(), draw.__name__, "glossary")
