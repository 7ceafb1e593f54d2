"""Weights from local files: loaded right, adapted to one channel, refused by name; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import densenet121, resnet18

from domainseg.networks import LocalizerRegression, LocalizerUNet, WholeFilmDenseNet121


@pytest.mark.parametrize("network", [LocalizerUNet, LocalizerRegression])
def test_resnet_stem_for_three_channels_answers_a_grey_picture_alike(
    network: type[LocalizerUNet | LocalizerRegression], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    reference = resnet18(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "r18.pt")
    net = network(weights=tmp_path / "r18.pt").eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        got = net.encoder(grey)[-1]
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(grey.expand(-1, 3, -1, -1)))))
        want = reference.layer4(reference.layer3(reference.layer2(reference.layer1(x))))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("old_names", [False, True])
def test_densenet_file_gives_torchvisions_features_for_normalised_grey(old_names: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = densenet121(weights=None).eval()
    state = reference.state_dict()
    if old_names:  # as in the files of torchvision's download server: "denselayer1.norm.1.weight"
        state = {
            (n if "denselayer" not in n else n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")): v
            for n, v in state.items()
        }
        assert any(".norm.1." in name for name in state)
    torch.save(state, tmp_path / "d121.pt")
    net = WholeFilmDenseNet121(weights=tmp_path / "d121.pt").eval()
    grey = torch.rand(1, 1, 64, 64)
    rgb = grey.expand(-1, 3, -1, -1)
    normal = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    with torch.no_grad():
        pooled = reference.features(normal).relu().mean((2, 3))
        torch.testing.assert_close(net(grey)["fracture"], net.classifier(pooled)[:, 0])


def test_missing_and_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not found: .*nowhere\.pt"):
        LocalizerUNet(weights=tmp_path / "nowhere.pt")
    torch.save({"layer1.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not fit a ResNet-18"):
        LocalizerRegression(weights=tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not fit a DenseNet-121"):
        WholeFilmDenseNet121(weights=tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a state_dict"):
        WholeFilmDenseNet121(weights=tmp_path / "list.pt")


@pytest.mark.parametrize("bottleneck", [None, 15])
def test_log_odds_are_the_mean_of_the_class_activation_map(bottleneck: int | None) -> None:
    """The classifier is linear, with a bottleneck too: the answer to the mean is the mean of the answers."""
    torch.manual_seed(0)
    net = WholeFilmDenseNet121(["pneumonia", "mass"], bottleneck=bottleneck).eval()
    with torch.no_grad():
        found = net(torch.rand(2, 1, 96, 64))
        features = net.features((torch.rand(1, 1, 64, 64) - net.mean) / net.std)
    assert list(found) == ["pneumonia", "mass", "map_pneumonia", "map_mass"]
    assert features.shape[1] == 1024
    for name in net.targets:
        assert found[f"map_{name}"].shape == (2, 3, 2)
        torch.testing.assert_close(found[f"map_{name}"].mean((1, 2)), found[name], rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in net.classifier.parameters()) == (2050 if bottleneck is None else 15 * 1025 + 32)
