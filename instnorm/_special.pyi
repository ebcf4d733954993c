import numpy as np

__test__: dict[str, str]

erf: np.ufunc
