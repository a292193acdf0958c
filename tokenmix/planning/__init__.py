"""What to train when nobody names a recipe: the task proposes, this machine's speed decides."""

from tokenmix.planning.budget import Budget, read_budget
from tokenmix.planning.plan import Plan, make_plan

__all__ = ["Budget", "Plan", "make_plan", "read_budget"]
