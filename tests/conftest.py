"""Environment of all tests and of the kernels they start: one thread each, for the suite uses both cores itself, and no
progress bars.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"
