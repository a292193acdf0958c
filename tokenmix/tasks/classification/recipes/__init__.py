"""The recipes of classifiers."""

from tokenmix.tasks.classification.recipes import affnet, casvit, dsm, ffnet
from tokenmix.tasks.classification.recipes.basic import basic, digits, matching_digits
from tokenmix.tasks.classification.recipes.finetune import finetune

RECIPES = (basic, digits, matching_digits, finetune, *affnet.RECIPES, *ffnet.RECIPES, *casvit.RECIPES, *dsm.RECIPES)
