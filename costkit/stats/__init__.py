"""What a sample says, and what it does not: intervals, tests that may be read at any moment, detectors of a change.

- :mod:`costkit.stats.intervals`: one look at a sample of fixed size;
- :mod:`costkit.stats.bets`: evidence against a bound on a mean, valid however often it is looked at;
- :mod:`costkit.stats.sequences`: intervals for a mean that hold at every sample size at once;
- :mod:`costkit.stats.dependence`: quantiles and shares where neighbours are alike, and whether to trust them;
- :mod:`costkit.stats.detect`: alarms, so many looks apart where nothing changed.

>>> bet = Bet(0.02)                       # somebody claims that 2% or more of the answers are wrong
>>> for _ in range(250):
...     bet.see(0.0)                      # none of these was
>>> bet.p < 0.05
True
"""

from __future__ import annotations

from costkit.stats.bets import Bet, Evidence, log_e_process, stakes, walk
from costkit.stats.dependence import Steady, correlation_time, steady_quantile, steady_share
from costkit.stats.detect import Cusum, ShiryaevRoberts, look_es
from costkit.stats.intervals import (
    Values,
    binomial_limits,
    bootstrap_change,
    bootstrap_mean,
    quantile,
    quantile_interval,
    wilson,
)
from costkit.stats.sequences import RunningMean, mean_sequence, running_mean_sequence
from costkit.stats.strata import Strata

__all__ = [
    "Bet",
    "Cusum",
    "Evidence",
    "RunningMean",
    "ShiryaevRoberts",
    "Steady",
    "Strata",
    "Values",
    "binomial_limits",
    "bootstrap_change",
    "bootstrap_mean",
    "correlation_time",
    "log_e_process",
    "look_es",
    "mean_sequence",
    "quantile",
    "quantile_interval",
    "running_mean_sequence",
    "stakes",
    "steady_quantile",
    "steady_share",
    "walk",
    "wilson",
]
