"""Backbones: importing this room registers every model of tokenmix with timm."""

from tokenmix.backbones import affnet, casvit, dsm, ffnet, mixernet
from tokenmix.backbones.base import Backbone, Head, Stage

__all__ = ["Backbone", "Head", "Stage", "affnet", "casvit", "dsm", "ffnet", "mixernet"]
