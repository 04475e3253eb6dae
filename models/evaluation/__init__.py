"""How good a model is: metrics with intervals, splits, baselines. Knows no model of ours."""
