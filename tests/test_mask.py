"""Masks as values: set algebra, making from scores, files."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save
from torch import nn

from maskutils.core.files import DamagedFile
from maskutils.core.storage import entropy
from maskutils.masks import files
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect

SIZES = {"a.weight": (20, 30), "b.weight": (7, 3, 3, 3), "c.weight": (50, 4)}
TOTAL = 600 + 189 + 200


def test_a_loaded_mask_of_a_large_network_is_the_same_at_every_density(tmp_path):
    """Of two layers of one size only one can be kept whole."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"y.weight": 10_000, "big.weight": 1_000_000, "x.weight": 10_000}
    mask = Mask.from_scores({name: torch.rand(n, generator=draw) for name, n in sizes.items()}, 0.05)
    mask.save(tmp_path / "m", scores=True)
    loaded = Mask.load(tmp_path / "m")
    assert list(loaded.scores) == list(sizes)
    for density in (0.05, 0.06, 0.07):
        assert loaded.at_density(density) == mask.at_density(density)
    assert [name for name, b in mask.bits.items() if b.all()] == ["x.weight"]


def random_scores(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SIZES.items()}


def random_mask(seed: int, density: float = 0.3) -> Mask:
    return Mask.from_scores(random_scores(seed), density)


def count(mask: Mask) -> int:
    return sum(int(b.sum()) for b in mask.bits.values())


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))


@pytest.mark.parametrize("seed", range(3))
def test_masks_obey_the_laws_of_sets(seed):
    a, b, c = (random_mask(10 * seed + i, 0.2 + 0.3 * i) for i in range(3))
    assert ~~a == a
    assert ~(a & b) == ~a | ~b
    assert a & b == b & a
    assert a | (a & b) == a
    assert a & (b | c) == (a & b) | (a & c)
    assert (a & ~a).density == 0.0
    assert (a | ~a).density == 1.0
    assert count(a) + count(b) == count(a & b) + count(a | b)


def test_set_algebra_loses_scores_and_leaves_its_operands_alone():
    a, b = random_mask(0), random_mask(1)
    for result in (a & b, a | b, ~a):
        assert (result.scores, result.history) == (None, ())
    assert (a, b) == (random_mask(0), random_mask(1))


def test_masks_are_equal_by_bits_alone():
    a = random_mask(0)
    assert a == Mask(a.bits)
    assert a != random_mask(1)
    assert a != "a mask"
    assert a != Mask({"a.weight": a.bits["a.weight"]})


@pytest.mark.parametrize(
    "bits", [{"w": torch.ones(3).bool()}, {"v": torch.ones(2).bool()}, dict.fromkeys("vw", torch.ones(2).bool())]
)
@pytest.mark.parametrize("operation", [Mask.__and__, Mask.__or__, Mask.iou])
def test_masks_of_different_networks_do_not_combine(operation, bits):
    with pytest.raises(ValueError, match="masks of different networks"):
        operation(Mask({"w": torch.ones(2).bool()}), Mask(bits))


@pytest.mark.parametrize("density", [0.02, 0.1, 1 / 3, 0.5, 0.777, 1.0])
def test_from_scores_keeps_exactly_the_rounded_share_of_all_weights(density):
    assert count(Mask.from_scores(random_scores(), density)) == round(density * TOTAL)


@pytest.mark.parametrize("density", [0.005, 0.1, 1 / 3, 0.5, 1.0])
def test_per_layer_each_layer_keeps_exactly_its_rounded_share_of_highest_scores(density):
    for name, s in random_scores().items():
        bits = Mask.from_scores(random_scores(), density, per_layer=True).bits[name]
        assert int(bits.sum()) == round(density * s.numel())
        assert density == 1 or s[bits].min() > s[~bits].max()


@pytest.mark.parametrize("density", [0.001, 0.003, 0.01])
def test_from_scores_is_exact_below_the_floor_too(density):
    scores = {name: torch.rand(150) for name in "abc"}
    assert count(Mask.from_scores(scores, density)) == max(3, round(density * 450))


def test_over_all_layers_the_highest_scores_are_kept():
    scores = random_scores()
    kept = Mask.from_scores(scores, 0.3).bits
    threshold = torch.cat([s.flatten() for s in scores.values()]).topk(round(0.3 * TOTAL)).values[-1]
    for name, s in scores.items():
        assert torch.equal(kept[name], s >= threshold)


@pytest.mark.parametrize(("floor", "kept"), [(0.01, 2), (0.05, 9), (0.3, 38)])
def test_no_layer_falls_below_the_floor_nor_the_density(floor, kept):
    scores = random_scores()
    scores["b.weight"] -= 100  # 189 weights that no ranking over all layers would keep
    mask = Mask.from_scores(scores, 0.2, floor=floor)
    assert int(mask.bits["b.weight"].sum()) == kept
    assert count(mask) == round(0.2 * TOTAL)
    assert scores["b.weight"][mask.bits["b.weight"]].min() > scores["b.weight"][~mask.bits["b.weight"]].max()


def test_equal_scores_are_kept_in_order_of_position():
    assert Mask.from_scores({"w": torch.ones(10_000)}, 0.3).bits["w"].nonzero().max() == 2_999
    tied = {"a": torch.tensor([1.0, 2.0, 1.0, 1.0]), "b": torch.ones(4)}
    assert Mask.from_scores(tied, 0.5, per_layer=True).bits["a"].tolist() == [True, True, False, False]
    bits = Mask.from_scores(tied, 0.5).bits
    assert (bits["a"].tolist(), bits["b"].tolist()) == ([True, True, True, False], [True, False, False, False])


def test_scores_of_minus_infinity_count_as_the_lowest():
    assert count(Mask.from_scores({"w": torch.tensor([1.0, -torch.inf, -torch.inf, -torch.inf])}, 0.5)) == 2


@pytest.mark.parametrize("density", [0.0, 1.5, -1.0, float("nan")])
@pytest.mark.parametrize("make", [Mask.from_scores, lambda scores, d: Mask.from_scores(scores, 0.5).at_density(d)])
def test_densities_outside_zero_to_one_are_refused(make, density):
    with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
        make(random_scores(), density)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({"w": torch.rand(9)}, {"density": "0.1"}, "density = '0.1' must be a number"),
        ({"w": torch.rand(9)}, {"density": None}, "density = None must be a number"),
        ({"w": torch.rand(9)}, {"density": 0.5, "per_layer": "no"}, "per_layer = 'no' must be True or False"),
        ({}, {"density": 0.5}, "there are no scores"),
    ],
)
def test_what_is_no_density_and_no_scores_is_refused(scores, options, message):
    with pytest.raises(ValueError, match=message):
        Mask.from_scores(scores, **options)


def test_at_density_keeps_ranking_and_history():
    mask = Mask.from_scores(random_scores(), 0.5)
    mask = Mask(mask.bits, mask.scores, ({"step": 1, "loss": 2.0},)).at_density(0.1, per_layer=True)
    assert mask == Mask.from_scores(random_scores(), 0.1, per_layer=True)
    assert mask.at_density(0.5) == random_mask(0, 0.5)
    assert mask.history == ({"step": 1, "loss": 2.0},)
    with pytest.raises(ValueError, match="carries no scores"):
        (~mask).at_density(0.1)


def test_shuffled_keeps_the_count_of_every_layer_and_nothing_else_but_the_seed():
    mask = random_mask(0)
    mixed = mask.shuffled(1)
    assert mixed.densities == mask.densities
    assert all(not torch.equal(mixed.bits[n], mask.bits[n]) for n in SIZES)
    assert mask.iou(mixed) < 0.3  # 0.18 by chance
    assert mask.shuffled(1) == mixed != mask.shuffled(2)
    twins = Mask(dict.fromkeys("ab", mask.bits["a.weight"])).shuffled(1)
    assert not torch.equal(twins.bits["a"], twins.bits["b"])


def test_shuffled_permutes_bits_and_scores_alike():
    mixed = random_mask(0).shuffled(1)
    assert mixed == Mask.from_scores(mixed.scores, 0.3)
    for name, s in random_scores().items():
        assert torch.equal(mixed.scores[name].flatten().sort().values, s.flatten().sort().values)


def test_sizes_and_densities_by_hand():
    mask = Mask({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True, True])})
    assert (mask.size, mask.density, mask.densities) == (6, 0.5, {"a": 0.25, "b": 1.0})
    assert repr(mask) == "Mask(2 layers, 6 weights, density 0.500)"


@pytest.mark.parametrize(
    ("a", "b", "iou"), [("110", "101", 1 / 3), ("110", "001", 0), ("000", "000", 1), ("101", "101", 1)]
)
def test_iou_by_hand(a, b, iou):
    first, second = (Mask({"w": torch.tensor([c == "1" for c in bits])}) for bits in (a, b))
    assert first.iou(second) == pytest.approx(iou)


def test_apply_zeroes_exactly_what_is_not_kept_in_a_copy(net):
    before = {n: p.clone() for n, p in net.named_parameters()}
    bits = torch.rand(3, 4) < 0.5
    masked = Mask({"0.weight": bits}).apply(net)
    assert torch.equal(masked[0].weight, torch.where(bits, net[0].weight, 0.0))
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name])
        assert masked.get_parameter(name) is not p
        assert name == "0.weight" or torch.equal(masked.get_parameter(name), p)


@pytest.mark.parametrize("use", [Mask.apply, Mask.check])
def test_a_mask_of_another_network_is_refused_with_names_and_shapes(net, use):
    shapes = {"0.weight": (3, 5), "1.weight": (3, 3), "7.weight": (2,)}
    wrong = r"2 of 3 .*0\.weight \(3, 5\) \(network: \(3, 4\)\), 7\.weight \(2,\) \(network: absent\)"
    with pytest.raises(ValueError, match=wrong):
        use(Mask({name: torch.ones(shape).bool() for name, shape in shapes.items()}), net)


def test_a_saved_mask_is_loaded_with_the_same_bits_and_no_scores(tmp_path):
    mask = Mask(random_mask(0).bits, random_scores(), ({"step": 1},))
    mask.save(tmp_path / "m")
    loaded = Mask.load(tmp_path / "m")
    assert loaded == mask
    assert all(b.shape == SIZES[n] and b.dtype == torch.bool for n, b in loaded.bits.items())
    assert (loaded.scores, loaded.history) == (None, ())


def test_scores_and_history_are_saved_if_asked(tmp_path):
    history = ({"step": 1, "loss": 0.125}, {"step": 2, "loss": 1 / 3})
    mask = Mask(random_mask(0).bits, random_scores(), history)
    mask.save(tmp_path / "m", scores=True)
    loaded = Mask.load(str(tmp_path / "m"))
    assert loaded == mask
    assert loaded.history == history
    assert all(torch.equal(loaded.scores[n], s) for n, s in mask.scores.items())


def test_a_file_has_one_bit_a_weight(tmp_path):
    n = 2**19
    Mask({"w": torch.rand(n) < 0.5}).save(tmp_path / "m")
    assert n / 8 < (tmp_path / "m").stat().st_size < n / 8 + 500


def mask_file(meta: dict[str, str] | None = None, bits: int = 8, code=files.coded, **shapes: list[int]) -> bytes:
    """A safetensors file with so many `bits` "w", and metadata that say what they will."""
    meta = {"format": files.FORMAT, "history": "[]", "shapes": json.dumps(shapes)} | (meta or {})
    tensors = code({"w": torch.ones(bits).bool()}) if bits else {}
    return save(tensors, {"checksum": files.digest(tensors, meta["shapes"], meta["history"], "")} | meta)


def test_a_hand_made_file_is_a_mask_and_a_missing_one_is_said_to_be_missing(tmp_path):
    (tmp_path / "m").write_bytes(mask_file(w=[2, 4]))
    assert Mask.load(tmp_path / "m") == Mask({"w": torch.ones(2, 4).bool()})
    with pytest.raises(FileNotFoundError, match=r"no mask at .*nowhere"):
        Mask.load(tmp_path / "nowhere")


@pytest.mark.parametrize("density", [0.001, 0.05, 0.1, 0.5, 1.0])
def test_what_is_stored_is_within_six_percent_of_the_entropy_bound_and_never_above_a_bit_a_weight(tmp_path, density):
    mask = Mask({"w": torch.rand(300, 400, generator=torch.Generator().manual_seed(0)) < density})
    mask.save(tmp_path / "m")
    assert Mask.load(tmp_path / "m") == mask
    bound = entropy(120_000, round(mask.density * 120_000))
    assert bound <= mask.stored_bits <= 1.06 * bound + 1000
    assert mask.stored_bits < (tmp_path / "m").stat().st_size * 8


FOREIGN = {
    "without bits": mask_file(bits=0, w=[8]),
    "not coded": mask_file(code=lambda bits: {"bits/w": torch.tensor([255]).byte()}, w=[8]),
    "without a checksum": save(
        files.coded({"w": torch.ones(8).bool()}), {"format": files.FORMAT, "shapes": '{"w": [8]}', "history": "[]"}
    ),
    "with another checksum": mask_file({"checksum": ""}, w=[8]),
    "empty": b"",
    "text": b"not a mask, by any means",
    "weights": save({"w": torch.ones(3)}),
    "other metadata": save({"w": torch.ones(3)}, {"format": "pt"}),
    "a layer too many": mask_file(w=[8], v=[8]),
    "damaged shapes": mask_file({"shapes": "{"}),
    "damaged history": mask_file({"history": "{"}, w=[8]),
    "another format": mask_file({"format": "maskutils.mask/3"}, w=[8]),
    "fewer bits than weights": mask_file(w=[800]),
    "more bits than weights": mask_file(bits=72, w=[8]),
    "shapes that are no shapes": mask_file({"shapes": "[1]"}),
}


@pytest.mark.parametrize("content", [pytest.param(c, id=n) for n, c in FOREIGN.items()])
def test_a_foreign_file_is_refused_with_its_name_and_the_way_out(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"/m is not a mask file or is damaged .*delete it and make it again"):
        Mask.load(tmp_path / "m")


@pytest.mark.parametrize("length", [4, 60, -1])
def test_a_truncated_file_is_refused(tmp_path, length):
    random_mask(0).save(tmp_path / "m", scores=True)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:length])
    with pytest.raises(DamagedFile, match="damaged"):
        Mask.load(tmp_path / "m")


def test_scores_that_are_nan_have_no_order_and_are_refused_by_layer():
    scores = {"good": torch.ones(3), "bad": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ValueError, match="scores of bad hold nan"):
        Mask.from_scores(scores, 0.5)


def test_another_density_keeps_what_the_task_needs_beside_the_mask():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    mask = Mask.from_scores({"0.weight": torch.rand(4, 4)}, 0.5).with_state(net)
    assert mask.at_density(0.25).state.keys() == mask.state.keys() == {"0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize(
    "bits",
    [{}, {"w": torch.ones(3)}, {"w": torch.ones(3).byte()}, {"w": [True]}, {"w": torch.ones(3).bool().to("meta")}],
    ids=str,
)
def test_a_mask_of_anything_but_bool_tensors_is_refused(bits):
    with pytest.raises(ValueError, match="a mask needs a bool tensor for each weight"):
        Mask(bits)


def test_a_folder_is_not_taken_for_a_mask(tmp_path):
    with pytest.raises(FileNotFoundError, match="it is a folder: name the file in it"):
        Mask.load(tmp_path)


def test_no_flipped_bit_loads_as_another_mask(tmp_path):
    net, draw = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2)), torch.Generator().manual_seed(0)
    mask = Mask.from_scores({"0.weight": torch.rand(30, 40)}, 0.3).with_state(net)
    mask.save(tmp_path / "m")
    whole, damaged = (tmp_path / "m").read_bytes(), 0
    for _ in range(300):
        place, bit = (int(torch.randint(n, (), generator=draw)) for n in (len(whole), 8))
        (tmp_path / "m").write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        try:
            loaded = Mask.load(tmp_path / "m")
        except DamagedFile:
            damaged += 1
        else:  # what was hit says nothing, as the name of the checksum
            assert loaded == mask
            assert all(torch.equal(t, loaded.state[n]) for n, t in mask.state.items())
    assert damaged > 250


def test_another_network_of_the_same_shapes_is_noticed_and_a_protected_one_is_not(tmp_path):
    nets = [nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2)) for _ in range(2)]
    mask = Mask({"0.weight": torch.rand(30, 40) < 0.3}).learnt_on(nets[0])
    mask.save(tmp_path / "m")
    loaded = Mask.load(tmp_path / "m")
    for use in (lambda: loaded.apply(nets[1]), lambda: protect(nets[1], loaded).__enter__()):
        with pytest.warns(UserWarning, match="learnt on other weights than this Sequential has"):
            use()
    optimizer = torch.optim.AdamW(nets[0].parameters(), 0.1)
    with protect(nets[0], loaded):
        nets[0](torch.rand(3, 40)).sum().backward()
        optimizer.step()
    loaded.apply(nets[0])
    (loaded & loaded).apply(nets[1])


def test_a_fine_tuned_copy_is_told_once_in_a_loop_and_not_at_all_once_it_is_the_masks_own():
    net = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))
    mask = Mask({"0.weight": torch.rand(30, 40) < 0.3}).learnt_on(net)
    with torch.no_grad():
        net[0].weight += 0.1  # fine-tuned
    with warnings.catch_warnings(record=True, action="default") as said:
        for _ in range(5):
            mask.apply(net)
            net[0].weight.data += 0.1
    assert len(said) == 1
    assert "mask = mask.learnt_on(model)" in str(said[0].message)
    mask = mask.learnt_on(net)
    with warnings.catch_warnings(action="error"), protect(net, mask):
        mask.apply(net)


class Renamed(nn.Sequential):
    """A network that writes its state under other names, as some wrappers do."""

    def state_dict(self, *args, **options):
        return {f"net.{name}": value for name, value in super().state_dict(*args, **options).items()}


def test_a_state_has_the_networks_own_names_and_no_buffer_that_is_not_kept():
    net = Renamed(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[1].register_buffer("passing", torch.zeros(1), persistent=False)
    mask = Mask({"0.weight": torch.ones(4, 4, dtype=torch.bool)}).with_state(net)
    statistics = {f"1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert mask.state.keys() == {"0.bias", "2.weight", "2.bias"} | statistics


@pytest.mark.parametrize("layer", [0, 1])
def test_a_bias_that_came_later_is_refused_where_the_state_has_none(layer):
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    mask = Mask({"0.weight": torch.ones(4, 4, dtype=torch.bool)}).with_state(net)
    net[layer].bias = nn.Parameter(torch.ones(net[layer].out_features))
    with pytest.raises(ValueError, match=rf"{layer}\.bias: the network had none when the mask was learnt"):
        mask.apply(net)
    Mask(mask.bits).apply(net)  # without a state nothing is promised
