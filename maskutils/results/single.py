"""Findings that compare single settings by the mean accuracy of both tasks: one setting for all pairs, the best on validation."""

from collections.abc import Sequence

import pandas as pd

from maskutils.core.approaches import every
from maskutils.results.analysis import (
    CANDIDATE,
    DECIMALS,
    best_on_validation,
    learnt,
    of_one_network,
    of_second_network,
    source_read,
    stored_bits,
    trained,
    with_family,
)
from maskutils.results.equal_storage import ABOUT
from maskutils.results.records import of_masks, on_grid
from maskutils.results.statistics import by_pair, paired
from maskutils.results.wording import called, in_doubt, kbit, listed, on_pairs, points, size, verb, versus

GAIN = 0.005  # source accuracy that learning a mask may add before it is told of
OF_ITS_BITS = "that stores at most a quarter more"


def at_one_setting(records: pd.DataFrame, masks: Sequence[str], rivals: Sequence[str]) -> tuple[list[str], str]:
    """With the task unknown, those of the families `rivals` that lead the best of the learnt `masks`, the furthest first; and sentences
    on them and on those that trail.
    """
    rows = with_family(on_grid(of_one_network(records)))
    both, val = ((rows[f"{p}source_acc_full"] + rows[f"{p}target_acc"]) / 2 for p in ("", "val_"))
    best = best_on_validation(rows.assign(both=both, val_both=val), "both")
    mask = str(best.groupby("family")["val_both"].mean()[list(masks)].idxmax())
    minus = {rival: paired(best, "both", [rival], mask).iloc[0] for rival in rivals}
    told = {says: [r for r, row in minus.items() if verb(row) == says] for says in ("leads", "trails")}
    leads = sorted(told["leads"], key=lambda r: -minus[r]["difference"])
    where = "At one setting, by the mean of both tasks,"
    said = f"{where} no opponent leads the learnt mask that is best there, {called(mask)}."
    if leads:
        who, by = listed(map(called, leads)), listed(size(minus[r]) for r in leads)
        said = f"{where} {who} {'lead' if len(leads) > 1 else 'leads'} the learnt mask that is best there, {called(mask)}, by {by} points."
    return leads, said + (f" That mask leads {listed(map(called, told['trails']))}." if told["trails"] else "")


def task_known(records: pd.DataFrame) -> str:
    """The best learnt mask beside the best rivals of about as many bits, of no more and of none; and what is reached with more bits.

    The last are the better rival of fewest bits, and a second network. Best is the highest mean of both tasks on validation. A rival
    is an approach that learns no mask, masks that nobody learns too. About as many: at most `ABOUT` times those of the mask.
    """
    rows, means = _tried(records)
    masks, rivals = means[means["mask"]], means[~means["mask"]]
    if masks.empty or rivals.empty:
        return "**Task known.** The records hold no learnt masks beside rivals whose bits are known."
    mask, best = masks["val_both"].idxmax(), masks.loc[masks["val_both"].idxmax()]
    about = rivals[rivals["bits"] <= ABOUT * best["bits"]]
    cheap = {
        OF_ITS_BITS: about,
        "that stores no more": rivals[rivals["bits"] <= best["bits"]],
        f"without a mask {OF_ITS_BITS}": about[~about["unlearnt"]],
        "that stores nothing": rivals[rivals["bits"] == 0],
    }
    chosen: dict[int, str] = {}  # the strongest first
    for which, table in cheap.items():
        if len(table):
            chosen.setdefault(table["val_both"].idxmax(), which)
    minus = {rival: paired(rows, "both", [mask], rival, by="candidate").iloc[0] for rival in chosen}
    reaches = "{} reaches {} as the mean of both tasks and stores {}.".format
    said = [reaches(f"{called(best['approach'])} at density {best['density']:g}", points(best["both"]), kbit(best))]
    decides = next(iter(minus.values()), None)
    for rival, row in minus.items():
        whom = called(means.approach[rival])
        if len(said) > 1:
            said.append(f"It {versus(row, f'the best rival {chosen[rival]} ({whom}, {kbit(means.loc[rival])})')}.")
            continue
        ahead, spread = on_pairs(
            by_pair(rows, "both", mask, rival, by="candidate")
        )  # the strongest, which the title names
        gained, decides = _gained(rows, mask, rival, whom, row)
        said.append(f"It {versus(row, f'that rival ({whom}, {kbit(means.loc[rival])})')}{ahead}.{spread}{gained}")
    title = ""
    if decides is not None:
        title = (
            f": a learnt mask {verb(decides)} the best rival {OF_ITS_BITS}"
            + ", not by the corrected interval" * in_doubt(decides)
        )
    return f"**Task known{title}.** {' '.join([*said, *_dearer(best, rivals)])}"


def _dearer(best: pd.Series, rivals: pd.DataFrame) -> list[str]:
    """What rivals of more bits than the setting `best` reach: a sentence, if there are any."""
    better = (rivals["bits"] > ABOUT * best["bits"]) & (rivals["val_both"] > best["val_both"]) & ~rivals["whole"]
    cheapest = rivals[better].sort_values(["bits", "val_both"], ascending=[True, False])[:1]
    dearer = [row for _, row in [*cheapest.iterrows(), *rivals[rivals["whole"]].iterrows()]]
    reached = [
        f"{called(row['approach'])} ({kbit(row)}){'' if i else ' reaches'} {points(row['both'])}"
        for i, row in enumerate(dearer)
    ]
    return [f"With more bits, {listed(reached)}."] if reached else []


def _gained(rows: pd.DataFrame, mask: int, rival: int, whom: str, row: pd.Series) -> tuple[str, pd.Series]:
    """What is to be said if learning the `mask` has made the source network better, and the comparison without that gain.

    Without a gain of `GAIN` on average nothing is said, and the comparison is `row` itself.
    """
    own = rows[rows["candidate"] == mask]
    gain = 2 * (own["both"] - own["both_before"]).mean()  # of the source, which is half of both
    if gain < GAIN:
        return "", row
    without = paired(rows, "both_before", [mask], rival, by="candidate").iloc[0]
    told = f" Learning it trains more on the source (+{100 * gain:.1f} points there{_spread(own)}); without that it reaches "
    return f"{told}{points(own['both_before'].mean())} and {versus(without, whom)}.", without


def _spread(own: pd.DataFrame) -> str:
    """From where to where the gain on the source goes over pairs, if there are several."""
    gains = 200 * (own["both"] - own["both_before"]).groupby(own["pair"]).mean()
    return f", {gains.min():+.1f} to {gains.max():+.1f} by pair" if len(gains) > 1 else ""


def _tried(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of learnt masks and of rivals with `candidate` and `both`, and a row for each setting tried on every pair of domains.

    `both_before` is `both` with a learnt mask read as the source network was read before the transfer: it neither gains nor loses.

    Columns of the settings: approach, density, mask (is it learnt), unlearnt (is it a mask that nobody learns), whole (is it a
    second network), bits, both and val_both.
    """
    rows, about = on_grid(records), {a.label or a.name: a for a in every()}
    mask = learnt(rows)
    kinds = ("baseline", "control", "reference")
    rival = [k for k, a in about.items() if a.kind in kinds and a.choosable and not a.learns_mask]
    bits, source = stored_bits(rows), source_read(rows, "known")
    rows = rows.assign(
        bits=bits,
        mask=mask,
        unlearnt=of_masks(rows) & ~mask,
        whole=of_second_network(rows) & (rows["alpha"] == 1),
        both=(source + rows["target_acc"]) / 2,
        both_before=(source.mask(mask, rows["source_acc_before"]) + rows["target_acc"]) / 2,
        val_both=(source_read(rows, "known", "val_") + rows["val_target_acc"]) / 2,
    )[(mask | trained(rows).isin(rival)) & bits.notna() & source.notna()]
    groups = rows.assign(candidate=rows.groupby(CANDIDATE, dropna=False).ngroup()).groupby("candidate")
    means = (
        groups[["approach", "density", "mask", "unlearnt", "whole"]]
        .first()
        .join(groups[["bits", "both", "val_both"]].mean())
    )
    means["val_both"] = means["val_both"].round(DECIMALS)
    return groups.obj, means[groups["pair"].nunique() == records["pair"].nunique()]
