"""Figures: each is one, with labelled axes; a method looks the same in all of them; files repeat bit for bit."""

import math
import struct

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from rows import BLANK

from maskutils.core import approaches
from maskutils.results import analysis, plots
from maskutils.results.plots import labels
from maskutils.results.plots.style import short
from maskutils.results.records import ACCURACIES, with_approach

mpl.use("Agg")
pytestmark = pytest.mark.slow  # each draws a figure

METHOD = "gumbel_sigmoid"
BOUNDS = ["source_only", "linear_probe", "finetune", "joint"]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make() -> pd.DataFrame:
    """Bounds, two masks at two densities, interpolations and L2-SP, on two pairs and two seeds."""
    blank = BLANK | {"stored_bits": 8e6, "masking_cost": 0.1, "drift": 0.02, "forgetting": 0.3}
    kinds = [{"protocol": p, "alpha": a} for p, a in [*((b, 1.0) for b in BOUNDS), ("finetune", 0.5)]]
    kinds += [{"protocol": "protect", "method": m, "density": d} for m in (METHOD, "random") for d in (0.1, 0.5)]
    kinds += [{"protocol": "l2_sp", "strength": s} for s in (1.0, 2.0)]
    out = []
    for i, kind in enumerate(kinds):
        for pair in ("mnist_to_digits", "mnist_low_to_high"):
            for seed in (0, 1):
                row = blank | {"alpha": 1.0} | kind | {"pair": pair, "seed": seed}
                row |= {"source_acc_full": 0.5 + 0.03 * i + 0.01 * seed, "target_acc": 0.9 - 0.03 * i}
                row["source_acc_masked"] = 0.95 if "method" in kind else math.nan
                out.append({f"val_{n}": row[n] for n in ACCURACIES} | row)
    return with_approach(pd.DataFrame(out))


RECORDS = make()
THREE = pd.concat([RECORDS, RECORDS[RECORDS["seed"] == 0].assign(seed=2)], ignore_index=True)  # seeds; above are two
HISTORIES = {name: [{"step": s, "loss": 1 / s} for s in (1, 2, 3)] for name in (METHOD, "finetune")}
FIGURES = {
    "tradeoff": lambda: plots.tradeoff(RECORDS),
    "tradeoff_by_pair": lambda: plots.tradeoff_by_pair(RECORDS),
    "by_density": lambda: plots.by_density(RECORDS, {"source_acc_full": "source, full", "target_acc": "target"}),
    "readings": lambda: plots.readings(
        RECORDS[RECORDS["method"] == METHOD], {"source_acc_masked": "source", "target_acc": "target"}
    ),
    "fronts": lambda: plots.fronts(analysis.with_family(RECORDS), ["l2_sp", METHOD]),
    "learning": lambda: plots.learning(HISTORIES, {"loss": "loss"}, percent=False),
    "layer_densities": lambda: plots.layer_densities({METHOD: {"0": 0.5, "1": 0.2}, "random": {"0": 0.1, "1": 0.1}}),
    "forgetting_split": lambda: plots.forgetting_split(RECORDS),
    "matrix": lambda: plots.matrix(pd.DataFrame([[1.0, 0.25], [0.25, 1.0]], ["a", "b"], ["a", "b"]), "overlap"),
    "storage": lambda: plots.storage(analysis.for_storage(RECORDS)),
    "storage_fronts": lambda: plots.storage_fronts(analysis.storage_front(RECORDS)),
    "lines": lambda: plots.lines(pd.DataFrame({"a": [0.1, 0.2], METHOD: [0.5, 0.9]}, [0.1, 0.4]), "x", "y"),
    "gallery": lambda: plots.gallery({"mnist": [[[[0.0, 1.0]]], [[[1.0, 0.0]]]], "digits": [[[[0.5, 0.0]]]]}),
}
PAIRED = [(METHOD, 0.2, 0.1, 0.25), ("random", -0.05, -0.06, -0.01)]
PAIRED = pd.DataFrame(PAIRED, columns=["family", "difference", "low", "high"])
AUDIT = pd.DataFrame({"recipe": ["zeroed", "held", "none"], "change": [1e-3, 0.0, 0.1], "leak_cost": [-2e-3, 0.0, 0.2]})
FIGURES["leaks"] = lambda: plots.leaks(AUDIT)
TRIED = pd.DataFrame(
    {
        "method": METHOD,
        "setting": ["lr 0.3", "lr 0.1"],
        "val_acc": [0.9, 0.8],
        "affordable": [True, False],
        "default": [True, False],
    }
)
FIGURES["settings_tried"] = lambda: plots.settings_tried(TRIED)
FIGURES["differences"] = lambda: plots.differences({"full": PAIRED, "known": PAIRED[:1]}, "points", margin=0.02)
FILTERS = (np.array([[[0.5, -0.2]], [[0.1, 0.3]]]), np.array([[[True, False]], [[False, False]]]))
FLIPS = {"images": [np.zeros((1, 2, 2))], "truth": [1], "said": {"tuned": [0], "masked": [1]}, "count": 7}
CURVES = pd.DataFrame({METHOD: [0.9, 0.95], "random": [0.1, 0.6]}, [0.1, 0.5])
MADE = {"training": np.array([0.2, 0.8]), "end": np.array([0.0, 1.0]), "gradient": np.array([0.1, 0.1])}
SIZED = (np.array([0.12, 0.32, 0.62, 0.92]), np.array([False, True, False, True]))
FIGURES |= {
    "filters": lambda: plots.filters({METHOD: FILTERS}),
    "layer_images": lambda: plots.layer_images({"native": np.eye(4, dtype=bool)}),
    "idea": lambda: plots.idea({"": MADE}, np.array([-1.0, 1.0]), MADE),
    "kept_by_size": lambda: plots.kept_by_size({"native": SIZED}),
    "score_histogram": lambda: plots.score_histogram(np.array([-1.0, 0.5, 2.0, 3.0]), 0.5),
    "accuracy_curves": lambda: plots.accuracy_curves(CURVES, 0.96),
    "flipped": lambda: plots.flipped(FLIPS, ["a", "b"]),
    "talk": lambda: plots.talk(FILTERS, 0.1, RECORDS, "mnist_to_digits"),
    "two_readings": plots.two_readings,
    "what_is_stored": plots.what_is_stored,
    "hypervolume_drawn": plots.hypervolume_drawn,
    "task_unknown": lambda: plots.task_unknown(RECORDS, [METHOD]),
}
UNLABELLED = {
    "matrix",
    "gallery",
    "filters",
    "flipped",
    "talk",
    "two_readings",
    "what_is_stored",
}  # their labels are ticks and row names
NAMED = {"forgetting_split", "differences", "leaks", "settings_tried", "storage"}  # their names are ticks


def lines(figure: Figure) -> list:
    return [line for axis in figure.axes for line in axis.get_lines()]


def test_every_public_figure_is_drawn_here():
    shown = {name for name, value in vars(plots).items() if callable(value)}
    assert set(FIGURES) | {"in_order", "look", "save_figure"} == shown


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_axes_with_labels(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure.axes
    assert all(axis.has_data() for axis in figure.axes if name not in UNLABELLED)
    if name not in UNLABELLED:
        lowest = [axis for axis in figure.axes if name != "by_density" or axis.get_subplotspec().is_last_row()]
        assert all(axis.get_xlabel() for axis in lowest)
        assert any(axis.get_ylabel() for axis in figure.axes) or name in NAMED


def test_a_matrix_shows_its_names_numbers_and_label():
    heat, bar = FIGURES["matrix"]().axes
    assert [t.get_text() for t in heat.texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert [t.get_text() for t in heat.get_xticklabels()] == ["a", "b"]
    assert bar.get_ylabel() == "overlap"


def test_drift_has_a_bar_and_a_name_only_where_there_is_any():
    def told(records):
        return [text.get_text() for text in plots.forgetting_split(records).legends[0].get_texts()]

    assert "drift (through the mask)" in told(RECORDS.assign(drift=0.01))
    assert "drift (through the mask)" not in told(RECORDS.assign(drift=0.0))


def test_a_gallery_has_a_named_row_for_each_domain():
    figure = FIGURES["gallery"]()
    assert [axis.get_ylabel() for axis in figure.axes] == ["mnist", "", "digits", ""]
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]


def test_differences_are_drawn_in_points_with_their_intervals_zero_and_margin():
    full, known = FIGURES["differences"]().axes
    assert [t.get_text() for t in full.get_yticklabels()] == [METHOD, "random"]
    assert [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in full.containers] == [(20, 0), (-5, 1)]
    ends = [segment[:, 0].tolist() for c in full.containers for segment in c.lines[2][0].get_segments()]
    assert ends == [pytest.approx([10, 25]), pytest.approx([-6, -1])]
    assert [line.get_xdata()[0] for line in full.get_lines()[-2:]] == [0, -2]
    assert [axis.get_title() for axis in (full, known)] == ["full", "known"]
    assert len(known.containers) == 1
    assert not [
        x for a in plots.differences({"a": PAIRED}, "x").axes for x in a.get_lines() if list(x.get_xdata()) == [-2, -2]
    ]


def test_differences_are_sorted_in_each_panel_and_far_ones_are_arrows_with_their_numbers():
    other = PAIRED.assign(family=["random", METHOD])
    first, second = plots.differences({"a": PAIRED, "b": other}, "x", least=-0.02).axes
    named = [[t.get_text() for t in axis.get_yticklabels()] for axis in (first, second)]
    assert named == [[METHOD, "random"], ["random", METHOD]]
    assert [t.get_text() for t in first.texts] == ["← -5.0 [-6.0, -1.0]"]
    assert len(first.containers) == 1
    assert first.get_xlim()[0] > -5


def test_the_default_of_a_layer_is_ringed_and_a_dear_setting_is_hollow():
    axis = plots.settings_tried(TRIED).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["lr 0.3", "lr 0.1"]
    drawn = [(line.get_xdata()[0], line.get_fillstyle(), line.get_markersize() > 10) for line in axis.get_lines()]
    assert drawn == [(90, "full", False), (90, "none", True), (80, "none", False)]
    assert axis.get_title() == METHOD


COLOURED = [
    "tradeoff",
    "tradeoff_by_pair",
    "by_density",
    "fronts",
    "learning",
    "storage",
    "storage_fronts",
    "differences",
]


@pytest.mark.parametrize("name", COLOURED)
def test_a_method_has_its_colour_in_every_figure(name):
    colour, marker = plots.look(METHOD).values()
    drawn = {(to_hex(line.get_color()), line.get_marker()) for line in lines(FIGURES[name]())}
    assert (to_hex(colour), marker) in drawn


def test_bars_have_the_colours_of_their_methods():
    axis = FIGURES["layer_densities"]().axes[0]
    handles = dict(zip(["a", "b"], axis.get_legend().get_patches(), strict=True))
    assert to_hex(handles["b"].get_facecolor()) == to_hex(plots.look("random")["color"])
    heights = [[bar.get_height() for bar in container] for container in axis.containers]
    assert heights == [[0.5, 0.2], [0.1, 0.1]]


def test_dropped_weights_are_left_out_of_the_colours_of_filters():
    first, second = (axis.get_images()[0].get_array() for axis in FIGURES["filters"]().axes)
    assert first.mask.tolist() == [[False, True]]
    assert first[0, 0] == 0.5
    assert second.mask.all()


def test_a_histogram_of_scores_says_how_many_are_kept():
    assert {t.get_text() for t in FIGURES["score_histogram"]().axes[0].texts} == {"dropped 25%", "kept 75%"}


def test_a_histogram_shows_the_few_weights_that_are_kept():
    few = plots.score_histogram(np.array([-1.0] * 97 + [1.0] * 3), 1.0).axes[0]
    assert few.get_yscale() == "log"
    assert "logarithmic" in few.get_ylabel()
    assert FIGURES["score_histogram"]().axes[0].get_yscale() == "linear"


def test_weights_that_popped_up_stand_left_of_the_line():
    axis = FIGURES["kept_by_size"]().axes[0]
    assert [round(bar.get_x(), 2) for bar in axis.patches if bar.get_height()] == [0.3, 0.9]
    assert axis.get_lines()[0].get_xdata()[0] == 0.5
    assert axis.get_title().startswith("native: 50% of the kept")


@pytest.mark.parametrize(
    "scores", [[-1.0, 0.5, 2.0, 3.0], [0.1, 0.2, 0.3, 0.9], [0.5, 0.5, 0.5, 0.5], [0.4999, 0.4999, 0.5, 1.0, 1.5]]
)
def test_no_bar_of_the_histogram_holds_kept_and_dropped_weights(scores):
    axis = plots.score_histogram(np.array(scores), 0.5).axes[0]
    dropped, kept = axis.containers
    assert all(bar.get_x() + bar.get_width() <= 0.5 + 1e-9 for bar in dropped if bar.get_height())
    assert all(bar.get_x() >= 0.5 for bar in kept if bar.get_height())
    assert sum(bar.get_height() for bar in [*dropped, *kept]) >= 3  # a thousandth at each end is left out
    assert any(bar.get_height() for bar in dropped) == (min(scores) < 0.5)
    highest = max(bar.get_y() + bar.get_height() for bar in kept)
    labels = [axis.transAxes.transform((0, text.xyann[1] + text.xy[1]))[1] for text in axis.texts]
    assert min(labels) > axis.transData.transform((0, highest))[1]


def test_pictures_have_a_frame_on_all_sides():
    for name in ("gallery", "flipped"):
        pictures = [axis for axis in FIGURES[name]().axes if axis.get_images()]
        assert all(spine.get_visible() for axis in pictures for spine in axis.spines.values())


def test_the_readings_of_a_mask_stand_in_one_panel_from_0_to_100_and_are_named():
    (axis,) = FIGURES["readings"]().axes
    assert {text.get_text() for text in axis.texts} == {"source", "target"}
    assert axis.get_ylim() == (0, 103)
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.get_lines() if line.get_linestyle() != "None"}
    assert len(looks) == 2


def test_the_readings_of_a_single_seed_have_no_intervals_and_are_named():
    one = RECORDS[(RECORDS["method"] == METHOD) & (RECORDS["seed"] == 0)]
    (axis,) = plots.readings(one, {"source_acc_masked": "source", "target_acc": "target"}).axes
    assert {text.get_text() for text in axis.texts} == {"source", "target"}


def test_training_curves_of_approaches_are_named_and_densities_begin_at_0():
    axis = FIGURES["learning"]().axes[0]
    assert {text.get_text() for text in axis.texts} == set(HISTORIES)
    assert not axis.figure.legends
    seeds = {f"seed {s}": [{"step": 1, "density": 0.84}, {"step": 2, "density": 0.83}] for s in (0, 1)}
    figure = plots.learning(seeds, {"density": "density"}, percent=False)
    assert figure.axes[0].get_ylim() == (0, 1.03)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["seed 0", "seed 1"]


def test_training_curves_are_named_at_their_ends_and_references_differ_in_dashes():
    about = {METHOD: (1, 0.9), "finetune": (2, 0.1), "joint": (2, 0.1)}  # one ends early, two end in one point
    curves = {n: [{"step": 0, "loss": 0.4}, {"step": s, "loss": v}] for n, (s, v) in about.items()}
    axis = plots.learning(curves, {"loss": "loss"}, percent=False).axes[0]
    assert {text.get_text(): text.xy for text in axis.texts} == about
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert lines["finetune"].get_linestyle() != lines["joint"].get_linestyle()
    assert max(axis.get_xticks()) <= 2  # the room for names has no ticks


def test_no_name_stands_at_a_point_that_all_curves_share():
    rows = {METHOD: 0.9, "random": 0.1, "shuffled": 0.5}
    table = pd.DataFrame({name: [0.4, value, 0.4] for name, value in rows.items()}, [0.05, 0.2, 0.8])
    axis = plots.accuracy_curves(table.rename_axis("density"), 0.93).axes[0]
    named = {text.get_text(): text.xy[0] for text in axis.texts}
    assert {name: named[name] for name in rows} == dict.fromkeys(rows, 0.2)


def test_flipped_images_have_the_answers_of_both_networks_above_them():
    texts = [t.get_text() for t in FIGURES["flipped"]().axes[0].texts]
    assert texts == ["a ✗", "b ✓", "tuned", "masked"]


def test_curves_against_density_are_named_and_controls_grey():
    axis = FIGURES["accuracy_curves"]().axes[0]
    assert {METHOD, "random", "whole network"} == {t.get_text() for t in axis.texts}
    colours = [to_hex(line.get_color()) for line in axis.get_lines()]
    assert colours == ["#000000", to_hex(plots.look(METHOD)["color"]), "#8c8c8c"]


def test_names_of_curves_against_density_do_not_cross_each_other():
    about = {"bernoulli": 0.86, "continuous_sparsification": 0.91, "winning_subnetwork": 0.92, "magnitude": 0.72}
    table = pd.DataFrame({name: [first, 0.93, 0.93] for name, first in about.items()}, [0.05, 0.2, 0.8])
    figure = plots.accuracy_curves(table.rename_axis("density"), 0.93)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_families_behind_the_fronts_are_grey_and_have_no_name():
    axis = plots.fronts(analysis.with_family(RECORDS), [METHOD], ["l2_sp"]).axes[0]
    assert "#c8c8c8" in {to_hex(line.get_color()) for line in axis.get_lines()}
    assert named(axis.figure) == {METHOD}


def test_fronts_without_fine_tuning_say_so():
    records = analysis.with_family(RECORDS)
    axis = plots.fronts(records[records["family"] != "wise_ft"], [METHOD]).axes[0]
    assert "no fine-tuning to compare with" in {text.get_text() for text in axis.texts}


def test_each_mask_has_a_panel_for_each_value_against_density_with_the_others_grey():
    axes = FIGURES["by_density"]().axes
    assert [axis.get_title() for axis in axes] == [METHOD, "random", "", ""]
    assert all([to_hex(line.get_color()) for line in axis.get_lines()].count("#cccccc") == 1 for axis in axes)
    assert [axis.get_ylabel() for axis in axes] == [
        "source,\nfull (%)",
        "",
        "target (%)",
        "",
    ]  # one would run into the next row


def test_no_interval_against_density_leaves_its_panel():
    off = (THREE["method"] == "random") & (THREE["seed"] == 1)  # of the last panel alone
    wide = THREE.assign(target_acc=THREE["target_acc"].mask(off, 0.7))
    for axis in plots.by_density(wide, {"target_acc": "target"}).axes:
        ends = np.concatenate([x.vertices[:, 1] for bars in axis.collections for x in bars.get_paths()])
        low, high = axis.get_ylim()
        assert low <= ends.min()
        assert ends.max() <= high or high == 103


def test_rivals_have_intervals_too_but_not_of_two_seeds():
    for records, drawn in ((THREE, True), (RECORDS, False)):
        axis = plots.tradeoff(records).axes[1]
        ends = [x.vertices for bars in axis.collections for x in bars.get_paths()]
        assert len(ends) > 2 * len(set(THREE.loc[THREE["protocol"] == "protect", "method"]))  # more than those of masks
        assert np.isfinite(np.concatenate(ends)).all() == drawn


def test_a_leak_too_small_to_matter_has_no_number():
    assert [text.get_text() for text in FIGURES["leaks"]().axes[1].texts] == ["", "", "20.0"]


def test_no_two_methods_look_alike():
    looks = [(to_hex(a.colour), a.marker) for a in approaches.every() if a.colour]
    assert len(set(looks)) == len(looks) >= 25


def named(figure: Figure, axis: int = 0) -> set[str]:
    return {text.get_text() for text in figure.axes[axis].texts}


def test_the_trade_off_draws_the_means_in_percent():
    _, full = FIGURES["tradeoff"]().axes
    rows = RECORDS[RECORDS["approach"] == METHOD].groupby("density")[["source_acc_full", "target_acc"]].mean() * 100
    curves = {line.get_marker(): line for line in full.get_lines()}
    assert curves[plots.look(METHOD)["marker"]].get_xydata() == pytest.approx(rows.to_numpy())
    assert list(curves["*"].get_xydata()[0]) == pytest.approx([95, 84])


def test_the_trade_off_names_at_most_six_curves_and_the_references():
    shown = {"ideal", "finetune", "joint"}
    assert named(FIGURES["tradeoff"](), 1) == {METHOD, "random", "wise_ft"} | shown
    crowd = pd.concat([RECORDS, *(RECORDS.assign(approach=n, family=n, protocol=n) for n in ("ewc", "spd", "osf"))])
    figure = plots.tradeoff(crowd)
    assert all(len(named(figure, i) - shown) <= 6 for i in (0, 1))
    assert "#c8c8c8" in {
        to_hex(line.get_color()) for line in plots.tradeoff(RECORDS.replace(METHOD, "snip")).axes[1].get_lines()
    }


def test_of_the_learnt_masks_the_trade_off_names_the_one_that_is_best_on_validation():
    worse = RECORDS[RECORDS["method"] == METHOD].assign(method="edge_popup", approach="edge_popup")
    worse = worse.assign(val_source_acc_full=0.3, source_acc_full=0.99, target_acc=0.99)  # on test it is the better one
    found = named(plots.tradeoff(pd.concat([RECORDS, worse])), 1)
    assert METHOD in found
    assert "edge_popup" not in found


def test_a_name_covers_no_other_and_stays_within_its_axes():
    figure = FIGURES["tradeoff"]()
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axis.texts]
        room = axis.get_window_extent()
        assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert all(room.x0 <= b.x0 and b.x1 <= room.x1 + 3 and room.y0 <= b.y0 and b.y1 <= room.y1 + 3 for b in boxes)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_thin_line_of_a_name_goes_round_other_names(seed):
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.set(xlim=(0, 1), ylim=(0, 1))
    points = np.random.default_rng(seed).uniform(size=(14, 2, 1))
    labels.name_curves({axis: {f"name_{i}": axis.plot(*point, "o")[0] for i, point in enumerate(points)}})
    figure.draw_without_rendering()
    boxes = {text: Text.get_window_extent(text) for text in axis.texts}
    thin = [text for text in axis.texts if text.arrow_patch.get_visible()]
    for text in thin:
        way = text.arrow_patch.get_path().transformed(text.arrow_patch.get_transform())
        assert not [name for name, box in boxes.items() if name is not text and way.intersects_bbox(box, filled=False)]
    assert thin


def test_the_talk_figure_of_records_without_an_ideal_enlarges_nothing():
    figure = plots.talk(
        FILTERS, 0.1, RECORDS[~RECORDS["approach"].isin(["finetune", "two_networks"])], "mnist_to_digits"
    )
    assert not any(axis.get_title() == "the corner with the ideal" for axis in figure.axes)


def test_the_talk_figure_marks_the_ideal_and_names_its_curves():
    figure = FIGURES["talk"]()
    assert named(figure, -1) >= {"ideal", "learnt mask, task known", "random mask, task known"}
    assert figure.subfigs[0].get_suptitle() == "kept: 10% of all weights,\n25% of the first layer"
    assert figure.subfigs[0].get_supxlabel() == "red above zero, blue below, grey not kept"
    assert figure.subfigs[1].axes[0].get_title().startswith("MNIST → UCI digits: ")


def test_fronts_are_what_nothing_beats_minus_weight_averaging():
    axis = plots.fronts(analysis.with_family(RECORDS), ["l2_sp", "wise_ft"]).axes[0]
    rows = RECORDS[RECORDS["approach"] == "l2_sp"].groupby("strength")[["source_acc_full", "target_acc"]].mean() * 100
    curve = next(line for line in axis.get_lines() if line.get_marker() == plots.look("l2_sp")["marker"])
    assert curve.get_xdata() == pytest.approx(rows["source_acc_full"].to_numpy()[::-1])
    tuned = (
        RECORDS[RECORDS["approach"].isin(["finetune", "wise_ft"])]
        .groupby("alpha")[["source_acc_full", "target_acc"]]
        .mean()
    )
    path = 100 * tuned.sort_values("source_acc_full")
    beyond = rows["target_acc"] - np.interp(rows["source_acc_full"], path["source_acc_full"], path["target_acc"])
    assert curve.get_ydata() == pytest.approx(beyond.to_numpy()[::-1])
    assert named(axis.figure) == {"l2_sp"}


def test_forgetting_is_split_into_masking_cost_and_drift():
    axis = FIGURES["forgetting_split"]().axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == [METHOD, "random"]
    cost, drift = ([bar.get_width() for bar in container] for container in axis.containers)
    assert cost + drift == pytest.approx([10, 10, 2, 2])
    assert list(lines(axis.figure)[0].get_xdata()) == pytest.approx([30, 30])


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))


@pytest.mark.usefixtures("root")
def test_saving_twice_writes_the_same_bytes():
    written = []
    for _ in range(2):
        files = plots.save_figure(FIGURES["learning"](), "figure")
        assert [f.name for f in files] == ["figure.png", "figure.pdf"]
        written.append([f.read_bytes() for f in files])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG")
    assert written[0][1].startswith(b"%PDF")


@pytest.mark.usefixtures("root")
def test_a_saved_figure_tells_what_made_the_records_that_it_shows():
    figure = FIGURES["learning"]()
    bare = plots.save_figure(figure, "figure", "study")[0].read_bytes()
    assert b"Description\x00profile study" in bare
    assert b"commit" not in bare
    table = pd.concat([RECORDS.assign(seed=seed, commit="0123456789ab", maskutils="0.0.7") for seed in (2, 10)])
    for file in (files := plots.save_figure(figure, "figure", "study", table)):
        assert b"profile study; maskutils 0.0.7; commit 0123456789ab; seeds 2, 10" in file.read_bytes()
    written = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in plots.save_figure(figure, "figure", "study", table)] == written


@pytest.mark.usefixtures("root")
def test_figures_are_saved_at_the_resolution_of_the_style():
    figure = FIGURES["learning"]()
    file = plots.save_figure(figure, "figure")[0]
    width = struct.unpack(">I", file.read_bytes()[16:20])[0]
    assert width == pytest.approx(160 * figure.get_figwidth(), abs=1)


def test_the_storage_fronts_are_those_of_the_table():
    table = pd.DataFrame(
        {
            "family": ["ewc", "l2_sp", METHOD, METHOD, METHOD],
            "stored_bits": [0, 0, 2e3, 1e3, 0],  # a mask that is not read is not stored, and not shown
            "both": [0.85, 0.6, 0.9, 0.84, 0.5],
            "both_ci": 0.01,
            "n": 3,
        }
    )
    (axis,) = plots.storage_fronts(table).axes
    shown = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}
    assert shown[METHOD] == ([1, 2], pytest.approx([84, 90]))
    assert shown["ewc"] == ([0], pytest.approx([85]))  # and so does each that stores nothing
    assert ([0], pytest.approx([60])) in shown.values()
    ends = {tuple(bar.vertices[:, 1].round(6)) for bars in axis.collections for bar in bars.get_paths()}
    assert ends == {(83, 85), (84, 86), (89, 91)}  # intervals of what has a name
    assert {t.get_text() for t in axis.texts} == {METHOD, "ewc"}  # l2_sp lies below the axis


def test_points_of_the_storage_fronts_that_have_no_name_can_be_seen():
    names = ["gumbel_sigmoid", "two_networks", "ewc", "replay", "fisher", "oft", "linear_probe"]
    reached = [0.9, 0.9, 0.92, 0.9, 0.9, 0.91, 0.89]  # the two that reach most have names, beside the usual four
    table = pd.DataFrame({"family": names, "stored_bits": [1e3 * i for i in range(7)], "both": reached})
    table = table.assign(both_ci=0.01, n=3)
    (axis,) = plots.storage_fronts(table).axes
    behind = [line for line in axis.get_lines() if line.get_color() == "#c8c8c8"]
    assert [line.get_marker() for line in behind] == ["."]
    assert {text.get_text() for text in axis.texts} == {*names[:6]}


def test_no_two_approaches_of_the_storage_figure_look_alike():
    names = ("select (gumbel_sigmoid)", "exclusive (gumbel_sigmoid)")
    extra = [RECORDS.query("alpha == 1 and density == 0.1").assign(approach=n, family=n, both=0.9) for n in names]
    figure = plots.storage(pd.concat(extra))
    assert len({(line.get_color(), line.get_marker()) for line in lines(figure)}) == 2


def test_the_storage_figure_names_settings_and_what_lies_too_low_stands_below():
    figure = plots.storage(analysis.for_storage(RECORDS))
    named = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "gumbel_sigmoid (density 0.1)" in named
    assert figure.get_supxlabel().startswith("not shown, more than 8 points below the best: source_only ")
    assert "source_only" not in named


def test_a_gallery_shows_colours_as_colours():
    red = np.zeros((3, 2, 2))
    red[0] = 5.0
    shown = plots.gallery({"photos": [red]}).axes[0].get_images()[0].get_array()
    assert shown.tolist() == [[[1.0, 0.0, 0.0]] * 2] * 2


def test_a_pair_is_titled_by_its_domains_and_their_collection():
    assert short("folders:/data/far/photos:/data/sketches") == "photos → sketches"
    assert short("pacs/photo:cifar20/first") == "pacs/photo → cifar20/first"
    assert short("cifar20:first:second") == "first → second (cifar20)"
    assert short("mnist_to_digits") == "mnist_to_digits"


def test_fronts_begin_at_fine_tuning_and_leave_no_room_for_what_lies_below_it():
    axis = plots.fronts(analysis.with_family(RECORDS), ["l2_sp", METHOD]).axes[0]
    tuned = 100 * RECORDS.loc[RECORDS["approach"] == "finetune", "source_acc_full"].mean()
    points = np.concatenate([line.get_xydata() for line in axis.get_lines() if len(line.get_xdata()) > 1])
    low, high = axis.get_xlim()
    assert low <= tuned < low + 0.1 * (high - low)
    assert points[:, 0].max() < high
    middle = axis.transData.inverted().transform(axis.transAxes.transform((0.5, 0)))[0]
    assert middle > (low + high) / 2  # the axis is stretched to the right, where settings crowd
