"""Networks by name, and the parts of any network: its head, its maskable weights, its norm layers."""
