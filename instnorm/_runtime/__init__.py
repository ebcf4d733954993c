"""What the kernels run on: which build of them, how many threads, recycled memory."""
