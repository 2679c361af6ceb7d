"""A sampler that predicts final scores from learning curves: a Gaussian process over configurations and budgets."""

from search_spaces.predictive.evidence import FAILED, TRIED, Horizon
from search_spaces.predictive.sampler import PredictiveSampler

__all__ = ["FAILED", "TRIED", "Horizon", "PredictiveSampler"]
