"""Segmentation of hemorrhage: our U-Net beside nnU-Net and MONAI's DynUNet."""
