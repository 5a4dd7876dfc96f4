"""Tables and sentences on the reader's choice, as `choice` makes it."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from maskutils.results import choice
from maskutils.results.report import STORED
from maskutils.results.wording import interval, intervals, listed, points, settings


def choices(
    records: pd.DataFrame, drops: Sequence[float], targets: Sequence[float] = (), tasks: Sequence[bool] = (True, False), **limits: Any
) -> pd.DataFrame:  # fmt: skip
    """What to choose for each need, with the task known and not (`tasks`), and what to expect on test with 95 % intervals over seeds.

    A need is a source accuracy that may be lost (one of `drops`) or a target accuracy to reach (`targets`), in [0, 1]. `limits` are those
    of `choice.recommend`. Limits that lead to the same choice are one row. Where nothing meets a need, the table says what comes nearest.
    """
    rows, pairs = [], records["pair"].nunique() > 1
    for task_known in tasks:
        known = {"task known": "yes" if task_known else "no"}
        found = [_asked(records, task_known, max_source_drop=d, **limits) for d in drops]
        told = [(f"{100 * d:g}", _told(chosen, pairs)) for d, chosen in zip(drops, found, strict=True)]
        for chosen, same in itertools.groupby(told, key=lambda row: row[1]):
            amounts = listed(dict.fromkeys(amount for amount, _ in same), last="or")
            rows.append({"need": f"lose at most {amounts} point{'s' * (amounts != '1')}"} | known | chosen)
        for t in targets:
            chosen = _told(_asked(records, task_known, min_target=t, **limits), pairs)
            rows.append({"need": f"reach {points(t)} on the target"} | known | chosen)
    return pd.DataFrame(rows)


def steadiness(records: pd.DataFrame, drops: Sequence[float], n: int = choice.DRAWS) -> str:
    """Sentences on how often the choice for each of `drops` is made again when the seeds are drawn again `n` times, and what is instead."""
    said, instead = [], []
    for task_known, task in {True: "known", False: "unknown"}.items():
        shares, others = {}, []
        for drop in drops:
            chosen = _asked(records, task_known, max_source_drop=drop)
            if isinstance(chosen, pd.Series):
                drawn = choice.stability(records, n=n, task_known=task_known, max_source_drop=drop)
                share = {_setting(row): 100 * row["share"] for _, row in drawn.iterrows()}
                shares[f"{100 * drop:g}"] = f"{share.get(_setting(chosen), 0):.0f}"
                most = max(share, key=share.__getitem__)
                others += [most] * (most != _setting(chosen))
        if shares:
            limits = f"limit{'s' * (len(shares) > 1)} of {listed(shares)}"
            said.append(f"in {listed(shares.values())} % of the draws with the task {task} ({limits} points)")
        if others:
            instead.append(f"{listed(dict.fromkeys(others))} with the task {task}")
    told = f"With the seeds drawn again, {n} times, the setting of a line is chosen {listed(said)}."
    return told + f" Where another is chosen more often, it is {listed(instead)}." * bool(instead)


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """A table of `choice.stability` or `choice.equivalent` with settings as "oft (block 8)", shares in percent, kbit, and points."""
    shown = pd.DataFrame({"choose": [_setting(row) for _, row in found.iterrows()]})
    if "share" in found:
        return shown.assign(**{"share (%)": [f"{100 * share:.0f}" for share in found["share"]]})
    stored, steps = (
        [f"{value:.0f}" for value in found[name] / unit] for name, unit in {"stored_bits": 1e3, "steps": 1}.items()
    )
    return shown.assign(**{STORED: stored, "steps": steps, "behind the top setting (points)": intervals(found)})


def _setting(chosen: pd.Series) -> str:
    """An approach with its settings, as "oft (block 8)"."""
    of = settings(chosen)
    return chosen["approach"] + (f" ({of})" if of else "")


def _asked(records: pd.DataFrame, task_known: bool, **need: Any) -> pd.Series | choice.Unmet:
    """What `choice.recommend` takes, or why nothing meets the need."""
    try:
        return choice.recommend(records, task_known=task_known, **need)
    except choice.Unmet as error:
        return error


def _told(chosen: pd.Series | choice.Unmet, pairs: bool) -> dict[str, str]:
    """A choice as cells of a table, with the worst of several `pairs` of domains."""
    titles = {"source_drop": "source lost (points)", "target_acc": "target (%)"}
    worst = {"source_drop_worst": "lost on the worst pair", "target_acc_worst": "target on the worst pair"}
    worst = worst if pairs else {}
    if isinstance(chosen, choice.Unmet):
        empty = dict.fromkeys([*titles.values(), STORED, "seeds", *worst.values()], "–")
        return {"choose": f"nothing: {chosen.nearest}"} | empty
    expected = {title: interval(*(chosen[n + end] for end in ("", "_low", "_high"))) for n, title in titles.items()}
    expected[STORED] = "–" if math.isnan(chosen["stored_bits"]) else f"{chosen['stored_bits'] / 1e3:.0f}"
    expected["seeds"] = f"{chosen['n']:.0f}"
    expected |= {title: f"{100 * chosen[name]:.1f}" for name, title in worst.items()}
    return {"choose": _setting(chosen)} | expected


def within(records: pd.DataFrame, drop: float, limits: Sequence[float]) -> pd.DataFrame:
    """What to choose, with the task known and a source accuracy `drop` to lose, for each of `limits` on the bits stored."""
    rows = {f"{bits / 1e3:.0f} kbit": choices(records, [drop], tasks=[True], max_bits=bits) for bits in limits}
    table = pd.concat(rows, names=["limit"]).droplevel(1)
    return table[["choose", "source lost (points)", "target (%)", STORED]]


def choice_findings(chosen: pd.DataFrame) -> str:
    """A Markdown line for each row of `choices`."""
    lines = []
    for need, known, choose, lost, target in chosen.iloc[:, :5].itertuples(index=False):
        know = "know" if known == "yes" else "do not know"
        expected = f"**{choose}**. Expect a loss of {lost} points on the source, and {target} % on the target."
        told = f"{choose}." if lost == "–" else expected
        lines.append(f"- To {need}, if you {know} the task at test time: {told}")
    return "\n".join(lines)


def promises(checked: pd.DataFrame) -> pd.DataFrame:
    """How `choice.check_choice` went for each allowed drop: how many choices, how many were kept, and the worst excess."""
    over = checked.assign(over=checked["found"] - checked["allowed"]).groupby("allowed")["over"]
    kept = choice.held(checked).groupby(checked["allowed"]).sum()
    worst = (100 * over.max()).map("{:+.1f}".format)
    table = pd.DataFrame({"choices": over.size(), "kept": kept, "worst (points over)": worst})
    table.insert(0, "may lose (points)", (100 * table.index).map("{:g}".format))
    return table.reset_index(drop=True)
