"""The study on fine-tuning: ways to tune against closed forms of their kernels, a made-up language, a checkpoint of one's own."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("fine-tuning")

from results import Results  # noqa: E402
from tune_claims import Runs, anchored, claims, why_not  # noqa: E402
from tune_models import GOOD, SO, Adapted, Data, digits, head, language_model, matrices, own_data, texts, tuned  # noqa: E402
from tune_page import page  # noqa: E402
from tune_runs import Descent, follow, kernels, rank_cosine  # noqa: E402

FOLDER = STUDIES / "fine-tuning"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Trained once."""
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("fine-tuning"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def points(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * count, 5, dtype=torch.float64, generator=generator)
    y = torch.sign(x[:, :1] + 0.1)
    return Data(x[:count], y[:count], x[count:], y[count:])


def test_each_way_trains_what_its_name_says(network):
    def trained(way):
        return {name for name, p in tuned(copy.deepcopy(network), way).named_parameters() if p.requires_grad}

    assert trained("full") == {f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")}
    assert trained("head") == {"4.weight", "4.bias"}
    assert trained("matrices") == {"0.weight", "2.weight"}
    assert trained("rank 3") == {f"{layer}.{part}" for layer in (0, 2) for part in ("down", "up")}
    assert head(network) is network[4]
    with pytest.raises(ValueError, match="full, head, matrices or rank"):
        tuned(network, "lower")


def test_adapters_change_nothing_at_the_start_and_have_the_kernel_of_their_closed_form(network):
    """Σ_l ⟨δ, δ'⟩⟨Ax, Ax'⟩, δ the gradient by the layer's output, by autograd; and r → ∞: that of the matrices, 1/√r away."""
    data, before = points(), network(points().x)
    adapted = tuned(copy.deepcopy(network), "rank 3")
    torch.testing.assert_close(adapted(data.x), before)
    seen, outputs = {}, {}
    for place in (0, 2):
        adapted[place].register_forward_pre_hook(lambda _, given, place=place: seen.update({place: given[0]}))
        adapted[place].register_forward_hook(lambda _, given, out, place=place: outputs.update({place: out}))
    total = adapted(data.x).sum()
    want = 0
    for place in (0, 2):
        delta = torch.autograd.grad(total, outputs[place], retain_graph=True)[0]
        low = seen[place] @ adapted[place].down.T
        want = want + (delta @ delta.T) * (low @ low.T)
    np.testing.assert_allclose(sum(kernels(adapted, data.x).values()), want.detach().numpy(), rtol=1e-10)
    cosines = [rank_cosine(lambda: copy.deepcopy(network), data, rank) for rank in (1, 4_000)]
    assert cosines[0] < cosines[1]
    assert 1 - cosines[1] < 0.01


def test_adapters_beside_layers_that_keep_their_matrix_transposed():
    """GPT-2's Conv1D: y = xW + b. The matrices' kernel of one layer is ⟨δ, δ'⟩⟨x, x'⟩ as well."""
    model = language_model(0, 8)
    shapes = {name: shape for _, name, _, shape in matrices(model)}
    assert shapes == {"c_attn": (8, 24), "c_proj": (32, 8), "c_fc": (8, 32)}
    layer = model.transformer.h[0].mlp.c_fc
    adapted, x = Adapted(copy.deepcopy(layer), 8, 32, 2), torch.randn(3, 8)
    torch.testing.assert_close(adapted(x), layer(x))
    adapted.up.data.normal_()
    torch.testing.assert_close(adapted(x) - layer(x), x @ (adapted.up @ adapted.down).T)


def test_a_head_is_descent_by_its_kernel_and_a_network_is_not(network):
    """Oracle: f is linear in the head, so both predictions are exact to rounding; by the definition, for the whole network."""
    data, descent = points(), Descent(0.5, level=0.2, updates=200)
    of_head = follow(tuned(copy.deepcopy(network), "head"), data, descent)
    assert of_head["updates"] > 3
    assert max(of_head["anchored"], of_head["foretold"], of_head["change"]) < 1e-20
    whole = copy.deepcopy(network)
    found = follow(whole, data, descent)
    start = {name: p.detach() for name, p in network.named_parameters()}
    step = {name: p.detach() - start[name] for name, p in whole.named_parameters()}
    told = torch.func.jvp(lambda t: torch.func.functional_call(network, t, data.unseen), (start,), (step,))[1]
    moved = (whole(data.unseen) - network(data.unseen)).detach()
    assert found["anchored"] == pytest.approx(float((told - moved).square().sum() / moved.square().sum()), rel=1e-8)
    assert found["loss"] <= 0.2
    assert found["foretold"] > 1e-6
    assert set(found["layers"]) == {"0", "2", "4"}
    assert found["right"][1] == pytest.approx(float((whole(data.unseen).sign() == data.truth).double().mean()))


def test_descent_ends_at_its_level_or_says_that_it_diverged(network):
    data = points()
    few = Descent(0.5, level=0.0, updates=3)
    assert few.run(copy.deepcopy(network), data, rate=0.01) == 3
    twin = copy.deepcopy(network)
    assert few.run(twin, data, rate=0.01) == 3
    loss = (0.5 * (network(data.x) - data.y).square().mean(),)[0]
    by_hand = [
        p - 0.01 * g
        for p, g in zip(network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True)
    ]
    one = copy.deepcopy(network)
    Descent(0.5, level=0.0, updates=1).run(one, data, rate=0.01)
    for p, want in zip(one.parameters(), by_hand, strict=True):
        torch.testing.assert_close(p, want)
    with pytest.raises(RuntimeError, match="smaller share"):
        Descent(0.5, level=0.0, updates=9).run(network, data, rate=1e200)


def test_texts_have_words_of_their_domain_that_fit_their_mood():
    """Counted by hand: three of four words fit; 4,000 words, four standard errors of a share are 0.028."""
    words, moods = texts(500, 1, torch.Generator().manual_seed(0))
    assert words[:, -1].tolist() == [SO] * 500
    assert words[:, :-1].min() >= 10
    assert words[:, :-1].max() < 20
    good = (words[:, :-1] % 2 == 0) == moods.bool()[:, None]
    assert float(good.double().mean()) == pytest.approx(0.75, abs=0.028)
    new, old = (digits(kind, seed=0) for kind in (True, False))
    assert len(new[0]) + len(old[0]) == 1797
    assert len(new[0]) == 896  # digits from 5 to 9 in scikit-learn's set
    assert set(new[1].flatten().tolist()) == {-1.0, 1.0}


def test_a_checkpoint_of_one_s_own_is_tuned_from_its_folder(tmp_path):
    """Saved, read and followed: the numbers of the study, without a network to be fetched."""
    torch.manual_seed(0)
    language_model(0, 8).save_pretrained(tmp_path / "model")
    (x, mood), (unseen, truth) = (texts(n, 1, torch.Generator().manual_seed(n)) for n in (6, 5))
    np.savez(tmp_path / "own.npz", tokens=x, labels=mood, unseen=unseen, truth=truth, words=[GOOD, GOOD + 1])
    data, words = own_data(tmp_path / "own.npz")
    assert words == (GOOD, GOOD + 1)
    torch.testing.assert_close(data.y[:, 0], 2.0 * mood - 1)
    found = study.own(tmp_path / "model", tmp_path / "own.npz", rank=2, updates=2)
    assert set(found) == {"full", "rank 2"}
    for numbers in found.values():
        assert numbers["updates"] == 2
        assert 0 <= numbers["anchored"] < 0.5  # two small steps


def test_pre_training_brings_the_kernel_nearer_and_the_head_is_exact(smoke):
    runs = Runs.of(smoke)
    near, far = (anchored(runs.parts(*way)[0]) for way in (("tuned", "full"), ("scratch", "full")))
    assert near < far
    assert anchored(runs.parts("tuned", "head")[0]) < 1e-10
    rows = {row.key: row.holds for row in claims(runs)}
    assert list(rows.values())[:2] == [True, True]
    assert set(list(rows.values())[2:]) == {None}  # what is recalled decides nothing


def test_claims_fall_where_they_should_and_the_page_is_made_of_results_alone(smoke, tmp_path):
    bad = copy.deepcopy(smoke.runs)
    bad[0]["cosines"] = {"1": 0.9, "16": 0.8}
    next(part for part in bad[0]["parts"] if part["way"] == "head")["anchored"] = 1e-3
    refuted = {row.key for row in claims(Runs(bad)) if row.holds is False}
    assert len(refuted) == 2
    assert len(list(why_not(Runs(bad), refuted))) == 2
    smoke.write(tmp_path / "results.json")
    assert re.search(r"2 of 2 claims that can be decided hold", page(Results.read(tmp_path / "results.json")))


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
