"""Networks: tensors in, named tensors out. Pure torch modules, no Lightning, no configuration."""

from domainseg.networks.base import InputSizeError, Network
from domainseg.networks.fracture import FractureDenseNet
from domainseg.networks.hemorrhage import UNet, UNet3d
from domainseg.networks.localizer import LocalizerRegression, LocalizerUNet
from domainseg.networks.mask_roi import BoxesAndOutlines, MaskRoiCnn
from domainseg.networks.small import HeadNet, ImplantNet, ViewNet
from domainseg.networks.whole_film import WholeFilmDenseNet121

__all__ = [
    "BoxesAndOutlines",
    "FractureDenseNet",
    "HeadNet",
    "ImplantNet",
    "InputSizeError",
    "LocalizerRegression",
    "LocalizerUNet",
    "MaskRoiCnn",
    "Network",
    "UNet",
    "UNet3d",
    "ViewNet",
    "WholeFilmDenseNet121",
]
