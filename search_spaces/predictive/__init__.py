"""A sampler that predicts final scores from learning curves: a Gaussian process over configurations and budgets."""

from search_spaces.predictive.evidence import Horizon
from search_spaces.predictive.sampler import PredictiveSampler

__all__ = ["Horizon", "PredictiveSampler"]
