"""Posteriors of a model/guide pair: its layout, draws of its codes, and their densities."""
