"""What computes, and waits for nothing."""

from ..row import Row, Verdict

_COMPUTES = {"plain": Verdict.COMPUTES}
_FOREST = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier

FOREST = RandomForestClassifier(100%s).fit(np.random.rand(300, 8), np.random.randint(0, 2, 300))
"""
_PREDICT = "assert len(FOREST.predict(np.random.rand(3000, 8))) == 3000"

ROWS = (
    Row(
        "numpy",
        "import numpy as np\nA = np.random.rand(700, 700)",
        "assert (A @ A @ A).shape == (700, 700)",
        **_COMPUTES,
    ),
    Row("sklearn_predict", _FOREST % "", _PREDICT, **_COMPUTES),
    Row("sklearn_njobs", _FOREST % ", n_jobs=2", _PREDICT, **_COMPUTES),
    Row(
        "zlib_big",
        "import zlib\nDATA = bytes(range(256)) * 40_000",
        "assert zlib.compress(DATA, 9)",
        **_COMPUTES,
    ),
    Row(
        "re_catastrophe",
        'import re\nPATTERN = re.compile(r"(a+)+$$")',
        'assert PATTERN.match("a" * 19 + "b") is None',
        **_COMPUTES,
    ),
)
