"""Attention blocks against values worked out by hand, to 1e-6."""

import math

import pytest
import torch

from fer_hf.models.layers_attention import CBAM, NoAttention, SqueezeExcite, attention_block


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_squeeze_excite_equals_hand_computed_gates():
    block = SqueezeExcite(channels=2, reduction=2)  # squeezed to 4, the least
    with torch.no_grad():
        block.reduce.weight.copy_(torch.tensor([[0.5, 0.5], [1, -1], [-1, 0], [0, 0]]).view(4, 2, 1, 1))
        block.reduce.bias.copy_(torch.tensor([0, 0, 0, 3.0]))
        block.expand.weight.copy_(torch.tensor([[1, 0.5, 9, 0.1], [-2, 0, 9, 1]]).view(2, 4, 1, 1))
        block.expand.bias.copy_(torch.tensor([0.2, -1.0]))
    x = torch.tensor([[[[1.0, 3.0]], [[-2.0, 0.0]]]])  # averages 2 and -1
    output, (gate,) = block(x)
    # Squeezed: relu(0.5·2 - 0.5·1) = 0.5, relu(2 + 1) = 3, relu(-2) = 0, relu(3) = 3.
    first, second = sigmoid(0.5 + 0.5 * 3 + 0.1 * 3 + 0.2), sigmoid(-2 * 0.5 + 3 - 1)
    assert first == pytest.approx(0.924142, abs=1e-6)
    assert second == pytest.approx(0.731059, abs=1e-6)
    torch.testing.assert_close(gate, torch.tensor([first, second]).view(1, 2, 1, 1), atol=1e-6, rtol=0)
    expected = torch.tensor([[[[first, 3 * first]], [[-2 * second, 0.0]]]])
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


@pytest.fixture
def cbam() -> CBAM:
    block = CBAM(channels=2, reduction=2, kernel_size=3)
    with torch.no_grad():
        block.mlp[0].weight.copy_(torch.tensor([[1, 0], [0, 1], [-1, 0], [0, 0]]).float().view(4, 2, 1, 1))
        block.mlp[2].weight.copy_(torch.tensor([[0.5, 0, 5, 5], [0, -1, 5, 5]]).float().view(2, 4, 1, 1))
        block.spatial.weight.zero_()
        block.spatial.weight[0, 0, 1, 1] = 2.0  # the average at the cell itself
        block.spatial.weight[0, 1, 1, 2] = 1.0  # the maximum at its right neighbour, zero beyond the edge
    return block


def test_cbam_equals_hand_computed_gate_and_map(cbam):
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    output, (gate, spatial) = cbam(x)
    # Averages 2 and 1, maxima 3 and 2; the shared MLP is linear here: 0.5·(2 + 3) and -(1 + 2).
    first, second = sigmoid(2.5), sigmoid(-3)
    assert first == pytest.approx(0.924142, abs=1e-6)
    assert second == pytest.approx(0.047426, abs=1e-6)
    torch.testing.assert_close(gate, torch.tensor([first, second]).view(1, 2, 1, 1), atol=1e-6, rtol=0)
    # Gated: (first, 3·first) and (0, 2·second); over channels the average is half their sum, the maximum is channel 1.
    left = sigmoid(2 * (first + 0) / 2 + 3 * first)
    right = sigmoid(2 * (3 * first + 2 * second) / 2 + 0)
    assert left == pytest.approx(0.975792, abs=1e-6)
    assert right == pytest.approx(0.946205, abs=1e-6)
    torch.testing.assert_close(spatial, torch.tensor([left, right]).view(1, 1, 1, 2), atol=1e-6, rtol=0)
    expected = torch.tensor([[[[first * left, 3 * first * right]], [[0.0, 2 * second * right]]]])
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


def test_cbam_attends_to_channels_before_places(cbam):
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    _, (_, spatial) = cbam(x)
    ungated_left = sigmoid(2 * (1 + 0) / 2 + 3)
    assert abs(spatial[0, 0, 0, 0].item() - ungated_left) > 1e-3


@pytest.mark.parametrize(("kind", "names"), [("none", ()), ("se", ("se",)), ("cbam", ("cbam.channel", "cbam.spatial"))])
def test_each_kind_hands_out_the_maps_it_names(kind, names):
    torch.manual_seed(0)
    block = attention_block(kind, channels=32, reduction=8)
    x = torch.randn(3, 32, 5, 7)
    output, maps = block(x)
    assert block.map_names == names
    assert [tuple(m.shape) for m in maps] == [(3, 32, 1, 1), (3, 1, 5, 7)][: len(names)]
    expected = x
    for scale in maps:
        expected = expected * scale
    assert torch.equal(output, expected)


def test_no_attention_has_no_parameters():
    assert not list(NoAttention().parameters())


def test_unknown_kinds_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown attention 'sen'; choose one of none, se, cbam"):
        attention_block("sen", 8, 4)
