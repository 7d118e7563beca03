"""Work in passes: sums that no order shows in, gradients against one backward, batch statistics by hand."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_modules.passes import UNIT, Crew, PassTrainer


@pytest.fixture(params=[1, 2])
def crew(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with Crew() as crew:
        assert crew.threads == request.param
        yield crew
    torch.set_num_threads(before)


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30), st.randoms())
@settings(max_examples=100, deadline=None)
def test_a_total_is_the_exact_sum_of_its_rounded_terms_in_any_order(terms, random):
    shuffled = random.sample(terms, len(terms))
    with Crew() as crew:
        one, two = (crew.total(lambda term: torch.tensor([term]), some, 1) for some in (terms, shuffled))
    assert one.item() == two.item()
    exact = sum(round(Fraction(term) / Fraction(UNIT)) * Fraction(UNIT) for term in terms)
    assert Fraction(one.item()) == exact


def test_a_term_that_is_no_number_makes_the_total_none(crew):
    got = crew.total(lambda term: torch.tensor([term, 1.0]), [1.0, float("nan"), float("inf")], 2)
    assert torch.isnan(got[0]) and got[1] == 3


def test_results_come_in_the_order_of_the_items_and_an_error_comes_through(crew):
    assert list(crew.map(lambda k: k * k, range(20))) == [k * k for k in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(crew.map(lambda k: 1 // k, [2, 1, 0]))


def test_gradients_and_autocast_are_in_the_threads_as_they_are_outside(crew):
    def seen(_: int) -> tuple[bool, bool, torch.dtype]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    assert set(crew.map(seen, range(4))) == {(True, False, torch.float32)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert set(crew.map(seen, range(4))) == {(False, True, torch.bfloat16)}


class Small(PassTrainer):
    """A network with batch statistics, on random images; each image a pass."""

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew)
        torch.manual_seed(0)
        self.small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.images = torch.randn(5, 1, 3, 12, 12) * torch.arange(1, 6).view(5, 1, 1, 1, 1)

    @property
    def net(self) -> nn.Module:
        return self.small

    def passes(self, step: int) -> list[int]:
        return list(range(5))

    def pass_loss(self, part: int, net: nn.Module) -> torch.Tensor:
        return net(self.images[part]).square().mean() / 5


def test_a_step_is_one_backward_over_all_passes_and_statistics_move_by_their_mean(crew):
    module = Small(crew).train()
    plain = Small(crew).small.train()
    means, losses = [], []
    for image in module.images:
        plain[1].reset_running_stats()
        losses.append(plain(image).square().mean() / 5)
        losses[-1].backward()
        means.append((plain[1].running_mean.clone(), plain[1].running_var.clone()))
    loss = module.training_step(0, 0)
    module.backward(loss)
    torch.testing.assert_close(loss, sum(losses).detach())
    for ours, theirs in zip(module.small.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    mean, var = (torch.stack(list(found)).mean(0) for found in zip(*means, strict=True))
    torch.testing.assert_close(module.small[1].running_mean, mean)
    torch.testing.assert_close(module.small[1].running_var, var)


def test_a_loss_that_is_no_number_ends_the_training_in_a_sentence(crew):
    module = Small(crew)
    module.images[3] = float("nan")
    with pytest.raises(ValueError, match="no finite number at step 0; lower --lr"):
        module.training_step(0, 0)
