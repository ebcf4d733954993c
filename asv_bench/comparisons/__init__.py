"""Instance norm by instnorm beside others: single calls (`peers`) and whole nets (`models`)."""
