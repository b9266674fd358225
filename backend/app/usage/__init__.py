"""What the work of providers costs: counted where it is done, priced, added up, and kept within budgets."""
