"""Continual 3D convolutional networks: clip nets that run frame by frame."""

__version__ = "0.1.0"
