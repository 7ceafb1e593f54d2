"""Networks: tensors in, named tensors out. Pure torch modules, no Lightning, no configuration."""

from domainseg.networks.base import InputSizeError, Network
from domainseg.networks.fracture import FractureDenseNet
from domainseg.networks.localizer import LocalizerRegression, LocalizerUNet
from domainseg.networks.small import ImplantNet, ViewNet
from domainseg.networks.whole_film import WholeFilmDenseNet121

__all__ = [
    "FractureDenseNet",
    "ImplantNet",
    "InputSizeError",
    "LocalizerRegression",
    "LocalizerUNet",
    "Network",
    "ViewNet",
    "WholeFilmDenseNet121",
]
