"""Training steps of toy nets, here and in PyTorch: the time, the memory, and the losses."""
