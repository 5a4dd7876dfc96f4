"""The README's numbers, from the committed records.

Owns which table or sentence stands where in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from maskutils.core import paths
from maskutils.core.approaches import names, the
from maskutils.core.files import read_json
from maskutils.results import analysis
from maskutils.results.claims import verify
from maskutils.results.records import load_records
from maskutils.results.report import (
    against,
    best_settings,
    choices,
    convergence,
    headline,
    markdown,
    plain,
    tradeoff_findings,
    verdicts,
)


def fill_readme(text: str, blocks: dict[str, str]) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced by `blocks[name]`.

    Raises `ValueError` for a name that `text` has no place for.
    """
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"no {begin} ... {end} in the text")
        text = text[: text.index(begin) + len(begin)] + f"\n{block.strip()}\n" + text[text.index(end) :]
    return text


def readme_blocks(profile: str = "study", beside: Sequence[str] = ("fashion",)) -> dict[str, str]:
    """What the README shows, from the committed records and manifest of `profile`; what these do not hold is said so in a line.

    Each of the profiles `beside` it has a block of its own name with its findings.
    """
    records, manifest = load_records(profile), read_json(paths.results_dir(profile) / "manifest.json")
    blocks = {
        "findings": tradeoff_findings(records),
        "headline": markdown(headline(records)),
        "choices": markdown(choices(records, [0.01, 0.02, 0.05, 0.1])),
        "verdicts": verdicts([v for v in verify(records) if v.passed is not None]),
        "cost": cost(records, manifest),
        "convergence": convergence(records),
    } | {name: tradeoff_findings(load_records(name)) for name in beside}
    if the("yardstick") not in set(records["approach"]):
        none = f"The records of `{profile}` hold no baselines with their interpolations; those of `study` do."
        return blocks | dict.fromkeys(("baselines", "families", "families_known"), none)
    families, known = (against(plain(analysis.hypervolumes(records, r)), "wise_ft") for r in ("full", "known"))
    tables = {"baselines": best_settings(records), "families": families, "families_known": known}
    return blocks | {name: markdown(table) for name, table in tables.items()}


def cost(records: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A sentence or two on what the records took: transfers, seconds, minutes of one core, and on what."""
    trained, made, one = records[records["alpha"] == 1], manifest["versions"], records.iloc[0]
    free = len(records) - len(trained)
    interpolated = (
        f" and {free:,} interpolations of them that cost nothing, {len(records):,} records in all," if free else ""
    )
    # a mask that came from the cache took no longer than a transfer without one
    prepared = trained.loc[trained["approach"] == the("free"), "mask_seconds"].median()
    learnt = trained.loc[
        trained["method"].isin(names("mask")) & (trained["mask_seconds"] > 10 * prepared), "mask_seconds"
    ]
    mask = f", learning a mask {learnt.median():.1f} s" if len(learnt) else ""
    return (
        f"The `{manifest['profile']}` profile is {len(trained):,} transfers{interpolated} over {records['pair'].nunique()} pairs and "
        f"{records['seed'].nunique()} seeds, with {one['source_steps']} steps of source training, {one['mask_steps']} for a mask "
        f"and {one['target_steps']} on the target. A transfer took {trained['seconds'].median():.1f} s (median){mask}, all notebooks "
        f"together {manifest['kernel_seconds'] / 60:.0f} minutes of one core, on {manifest['cores']} cores with Python "
        f"{made['python']} and torch {made['torch']}."
    )


if __name__ == "__main__":
    readme = paths.project_root() / "README.md"
    readme.write_text(fill_readme(readme.read_text(encoding="utf-8"), readme_blocks()), encoding="utf-8")
