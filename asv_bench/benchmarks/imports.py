"""Time to import the package, in an interpreter of its own; NumPy's is the greater part."""


class Import:
    def timeraw_instnorm(self):
        return "import instnorm"

    def timeraw_numpy(self):
        return "import numpy"
