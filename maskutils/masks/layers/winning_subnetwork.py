"""Winning subnetworks."""

from maskutils.masks.layers.base import layer
from maskutils.masks.layers.edge_popup import EdgePopup


@layer("winning_subnetwork", place=7, colour="#b8860b", marker="*")
class WinningSubnetwork(EdgePopup):
    """The selection of edge-popup, with scores *and weights* learnt together: dL/ds = sign(s) g w, dL/dw = g m.

    Source: Kang et al. 2022, *Forget-free Continual Learning with Winning Subnetworks* (ICML), for one task. Adam on both; scores begin at
    |w| as in our edge-popup (at random in the paper), weights as the source network left them. It gives a network as well as a mask.
    Their code keeps every |s| at or above a percentile, so that equal scores can add to the density; ours keeps exactly round(density n).
    We leave biases and norm layers as they are, and learn ten times as fast as they do (1e-3), for fewer steps.
    """

    optimizer, lr = "adam", 1e-2
    trains_weights = True
