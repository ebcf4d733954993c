"""Instance norm by instnorm and by other libraries, side by side: `make peers`."""
