"""Between PyTorch and MindSpore: layers, state dicts, checkpoint files, and what differs."""
