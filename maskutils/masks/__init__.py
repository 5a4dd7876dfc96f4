"""Weight masks: the layers that learn them, the rankings that need no learning, the `Mask` value and its protection."""
