"""The findings of the README: what masks lose and win against their rivals, in sentences made from records.

Here whole curves are compared, in `single` the best settings. Both are chosen on validation and reported on test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from maskutils.core.approaches import every, names, the
from maskutils.results import single
from maskutils.results.fronts import hypervolumes, largest
from maskutils.results.statistics import LEAST, by_pair, paired
from maskutils.results.verdicts import rankings
from maskutils.results.wording import (
    APART,
    TUNED,
    Finding,
    called,
    in_doubt,
    leading,
    listed,
    on_pairs,
    sizes,
    verb,
    versus,
    with_tuning,
)


@dataclass(frozen=True)
class Areas:
    """Hypervolumes of all families in one reading of the source, on `test` and on `val`, as `hypervolumes` gives them."""

    test: pd.DataFrame
    val: pd.DataFrame

    def there(self, wanted: Sequence[str]) -> list[str]:
        """Those of the families `wanted` that there are."""
        found = set(self.val["family"])
        return [name for name in wanted if name in found]

    def best(self, wanted: Sequence[str]) -> str:
        """The one of `wanted` with the largest area on validation; empty if there is none."""
        return largest(self.val, wanted)

    def minus(self, of: Sequence[str], other: str) -> pd.DataFrame:
        """The areas of the families `of` minus that of `other`, on test: rows of `paired`."""
        return paired(self.test, "hypervolume", of, other)


def findings(records: pd.DataFrame) -> tuple[str, str]:
    """Three Markdown items: masks with the task unknown, with the task known beside rivals of their bits, and learnt against unlearnt;
    and the first two as the first page tells them.

    Differences are in points, with 95 % intervals over seeds; "leads" and "trails" stand where the interval excludes 0. An item
    says so if its rows are missing, and the whole if there are fewer than `LEAST` seeds.
    """
    seeds = records["seed"].nunique()
    if seeds < LEAST:
        said = f"A finding takes {LEAST} seeds; these records hold {seeds}."
        return said, said
    full, known = (Areas(*(hypervolumes(records, r, split) for split in ("", "val_"))) for r in ("full", "known"))
    curves, told = over_curves(known), single.task_known(records)
    found = [task_unknown(full, records), replace(told, more=[*told.more, *curves]), learnt_or_not(full, known)]
    whole = "\n".join(finding.told() for finding in found)
    brief = "\n".join(finding.told(whole=False) for finding in found[:2])
    return whole, " ".join([brief, *curves])


def task_unknown(full: Areas, records: pd.DataFrame) -> Finding:
    """Which rivals cover more than every mask, or else than the best learnt one, and by how much; that one beside the yardstick; and
    which lead at one setting.
    """
    masks, yardstick = full.there(names("mask", "control")), the("yardstick")
    rivals = full.there([a.name for a in every() if a.rival and a.kind != "control"])
    if not full.best(names("mask")) or not rivals:
        return Finding("Task unknown", ["The records hold no learnt masks beside rivals without one."])
    ranked = sorted(rivals, key=full.test.groupby("family")["hypervolume"].mean().get, reverse=True)
    over = [r for r in ranked if (full.minus(masks, r)["high"] < 0).all()]
    top, best = full.best(masks), full.best(names("mask"))
    leads, at_one = single.at_one_setting(records, full.there(names("mask")), rivals)
    ahead = {r: row for r in ranked if (row := full.minus([r], best).iloc[0])["low"] > 0}
    if over:
        by = sizes(full.minus([r], top).iloc[0] for r in over)
        short, beaten = "masks lose", f"The strongest, {called(top)}, trails by {by} points of hypervolume."
        said = f"{leading(over)} every mask, learnt or not. {beaten}"
    elif ahead:
        by = listed(f"{called(r)} by {sizes([row])}" for r, row in ahead.items())
        short = "masks trail" if leads else "over whole curves masks trail"
        said = f"the best learnt mask, {called(best)}, trails {by} points of hypervolume."
    else:
        short = "no rival leads the masks"
        if leads:
            sure = [r for r, row in leads.items() if not in_doubt(row)]
            short = f"at one setting {leading(sure or list(leads))} the masks"
            short += ", but not for certain" * (not sure)
        said = f"the best learnt mask is {called(best)}. It {_leads(full, best, rivals)}."
    strongest = next(iter(over or ahead), "")
    beside = [rival for rival in dict.fromkeys((yardstick, strongest)) if rival in rivals]
    begins = (f"Over whole curves the best learnt mask, {called(best)},", "It")
    told = [f"{begin} {_beside(full, best, rival)}" for begin, rival in zip(begins, beside, strict=False)]
    curves = f"Over whole curves, {said}"
    said, rest = (curves, at_one[0]) if over or ahead or not leads else (at_one[0], curves)  # as in short
    more = [rest, *at_one[1:], *told, f"Rivals: {listed(map(called, rivals))}."]
    return Finding("Task unknown", [said], more, short)


def _leads(full: Areas, best: str, rivals: Sequence[str]) -> str:
    """Which of `rivals` the mask `best` leads, and from which it cannot be told."""
    led = [r for r in rivals if full.minus([best], r)["low"].item() > 0]
    rest = [r for r in rivals if r not in led]
    told = [f"leads {with_tuning(led)}"] if led else []
    if rest:
        told.append(f"{APART} {'the other rivals' if led and len(rest) > 2 else listed(map(called, rest))}")
    return (", and " if told[0].endswith(TUNED) else " and ").join(told)


def _beside(full: Areas, best: str, rival: str) -> str:
    """What is to be said of the mask `best` against `rival`, from the verb on, and on which pairs of domains."""
    ahead, spread = on_pairs(by_pair(full.test, "hypervolume", best, rival))
    told = versus(full.minus([best], rival).iloc[0], called(rival))
    return " ".join([f"{told}{f', and {ahead}' * bool(ahead)}.", *spread])


def learnt_or_not(full: Areas, known: Areas) -> Finding:
    """In both readings, the best learnt mask beside the best that nobody learns, beside PackNet and beside a random one."""
    said = []
    for when, found in {"known": known, "unknown": full}.items():
        best, others = found.best(names("mask")), [*_unlearnt(found), *found.there([the("chance")])]
        told = [versus(found.minus([best], other).iloc[0], called(other)) for other in others if best]
        said += [f"With the task {when}, {called(best)} {listed(told)}."] if told else []
    return Finding("Learnt against unlearnt masks, by their whole curves", said or ["The records do not hold both."])


def over_curves(known: Areas) -> list[str]:
    """A sentence on what leads the best learnt mask over whole curves, and on masks that nobody learns and that do as well.

    None if there is neither.
    """
    if not (best := known.best(names("mask"))):
        return []
    unlearnt = _unlearnt(known)
    others = dict.fromkeys([*known.there([a.name for a in every() if a.rival]), *unlearnt])
    rows = known.minus(list(others), best).set_index("family").sort_values("difference", ascending=False, kind="stable")
    ahead = {other: row for other, row in rows.iterrows() if verb(row) == "leads"}
    level = [other for other in unlearnt if verb(rows.loc[other]) == APART and rows.loc[other, "n"] >= LEAST]
    told = []
    if ahead:
        told.append(f"{leading(list(ahead))} the best learnt mask, {called(best)}, by {sizes(ahead.values())} points")
    if level:
        told.append(f"{listed(map(called, level))} cannot be told apart from {called(best)}")
    return [f"Over whole curves, {'. '.join(told)}."] if told else []


def _unlearnt(found: Areas) -> list[str]:
    """The best of the rankings, and what makes a mask without learning one (PackNet); those that there are."""
    own = [a.name for a in every() if a.known == "masked" and a.kind == "baseline"]
    return [*filter(None, [found.best(rankings())]), *found.there(own)]
