"""Random streams: named, independent, and without a trace in torch's global generators."""

import pytest
import torch

from maskutils.core.seeds import generator, seeded, stream


def test_a_stream_is_the_hash_of_seed_and_name():
    # printf '3/batches' | sha256sum | cut -c1-16, without its last bit
    assert stream(3, "batches") == 9184503314569808841


@pytest.mark.parametrize("seed", [0, 1, 10**9])
@pytest.mark.parametrize("name", ["", "model/cnn", "batches"])
def test_a_stream_is_a_seed_that_torch_takes(seed, name):
    assert 0 <= stream(seed, name) < 2**63
    torch.Generator().manual_seed(stream(seed, name))


def test_streams_differ_by_seed_and_by_name():
    assert len({stream(seed, name) for seed in range(20) for name in ("a", "b", "split/mnist", "1/a", "11")}) == 100


def test_a_generator_repeats_its_stream():
    first, second = torch.rand(5, generator=generator(1, "a")), torch.rand(5, generator=generator(1, "a"))
    assert torch.equal(first, second)


def test_drawing_from_one_stream_leaves_the_others_alone():
    a = generator(0, "a")
    before = torch.rand(3, generator=a)
    torch.rand(100, generator=generator(0, "b"))
    again = generator(0, "a")
    assert torch.equal(torch.rand(6, generator=again), torch.cat([before, torch.rand(3, generator=a)]))


def test_inside_the_block_torch_draws_from_the_stream():
    with seeded(2, "init"):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=generator(2, "init")))


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    with seeded(2, "init"):
        torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_is_left_as_it_was_when_the_block_raises():
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(2, "init"):
        torch.rand(4) @ torch.rand(5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_inner_block_does_not_disturb_the_outer_one():
    with seeded(0, "outer"):
        plain = torch.rand(6)
    with seeded(0, "outer"):
        first = torch.rand(3)
        with seeded(0, "inner"):
            torch.rand(9)
        assert torch.equal(torch.cat([first, torch.rand(3)]), plain)


def test_a_gpu_that_nobody_has_used_is_not_seeded_for_later():
    torch.cuda.manual_seed_all(7)
    queued = torch.cuda._lazy_seed_tracker.get_calls()
    with seeded(3, "fit"):
        torch.rand(2)
    assert torch.cuda._lazy_seed_tracker.get_calls() is queued
