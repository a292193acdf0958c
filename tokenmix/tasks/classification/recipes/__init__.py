"""The recipes of classifiers."""

from tokenmix.tasks.classification.recipes import affnet, casvit, dsm, ffnet
from tokenmix.tasks.classification.recipes.basic import basic, digits
from tokenmix.tasks.classification.recipes.finetune import finetune

RECIPES = (basic, digits, finetune, *affnet.RECIPES, *ffnet.RECIPES, *casvit.RECIPES, *dsm.RECIPES)
