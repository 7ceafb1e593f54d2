"""The chest phantom: frontal chest films with 14 findings, several sites and planted confounders."""
