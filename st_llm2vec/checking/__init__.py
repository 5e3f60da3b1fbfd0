"""Is an encoder what it promises, here, with these libraries, on this machine?"""

from st_llm2vec.checking.checks import DTYPES, check
from st_llm2vec.checking.finding import Finding, failures

__all__ = ["DTYPES", "Finding", "check", "failures"]
