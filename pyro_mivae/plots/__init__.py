"""Pictures of a trained model: functions that draw on a matplotlib Axes."""

from pyro_mivae.plots.bars import (
    plot_contributions,
    plot_information_bar,
    plot_sandwich,
)
from pyro_mivae.plots.codes import plot_confusion_matrix, plot_factor_matrix, plot_latent_space
from pyro_mivae.plots.curves import (
    plot_curves,
    plot_information_curves,
    plot_loss_curves,
    plot_runs,
)
from pyro_mivae.plots.frontier import plot_rate_distortion
from pyro_mivae.plots.grids import (
    grid_figure,
    plot_conditional_samples,
    plot_grid,
    plot_interpolations,
    plot_parts,
    plot_radii,
    plot_reconstructions,
    plot_samples,
    plot_traversals,
)
from pyro_mivae.plots.style import PALETTE, new_figure, render_png

__all__ = [
    "PALETTE",
    "grid_figure",
    "new_figure",
    "plot_conditional_samples",
    "plot_confusion_matrix",
    "plot_contributions",
    "plot_curves",
    "plot_factor_matrix",
    "plot_grid",
    "plot_information_bar",
    "plot_information_curves",
    "plot_interpolations",
    "plot_latent_space",
    "plot_loss_curves",
    "plot_parts",
    "plot_radii",
    "plot_rate_distortion",
    "plot_reconstructions",
    "plot_runs",
    "plot_samples",
    "plot_sandwich",
    "plot_traversals",
    "render_png",
]
