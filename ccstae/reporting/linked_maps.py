"""Maps that a reader moves and enlarges all at once, with the values under the pointer. bokeh draws
them in the browser from its bundle, which a page holds once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from bokeh.embed import components
from bokeh.layouts import gridplot
from bokeh.models import (
    ColorBar,
    ColorMapper,
    ColumnDataSource,
    CrosshairTool,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    LogColorMapper,
    Range1d,
    ResetTool,
    Span,
    WheelZoomTool,
)
from bokeh.models.plots import GridPlot
from bokeh.plotting import figure
from bokeh.resources import Resources
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from ccstae.reporting.figures.style import VACUUM_COLOUR

MAX_POINTS = 2**18
"""Of a map that a page shows whole: a layer of it takes 1.4 MB of the page."""
PANEL_PX = 186  # longer side of a map; four of them fill the page
_MIN_PANEL_PX = 48  # of a scan of few rows
_BAR_PX = 10
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Of colours, from `low` to `high`."""

    low: float
    high: float
    palette: str  # a colour map of matplotlib
    label: str
    logarithmic: bool = False
    steps: int = 256
    """Colours; as many as there are values where these are whole numbers."""

    def mapper(self) -> ColorMapper:
        colours = mpl.colormaps[self.palette].resampled(self.steps)
        kind = LogColorMapper if self.logarithmic else LinearColorMapper
        return kind(
            palette=[to_hex(colours(k)) for k in range(self.steps)],
            low=self.low,
            high=self.high,
            nan_color=VACUUM_COLOUR,
        )

    def bar(self, mapper: ColorMapper) -> ColorBar:
        bar = ColorBar(color_mapper=mapper, width=_BAR_PX, padding=4, title=self.label)
        if self.steps < 256:
            bar.ticker = FixedTicker(ticks=np.arange(self.low + 0.5, self.high).tolist())
        return bar


@dataclass(frozen=True)
class Panel:
    """One map."""

    layer: str
    title: str
    scale: Scale
    """Panels of the same scale share its colours; the last of them has the bar."""


def shown_step(shape: tuple[int, ...]) -> int:
    """Every which row and column of an image (rows, columns) are shown, so that no more than
    `MAX_POINTS` are.
    """
    step = 1
    while -(-shape[0] // step) * -(-shape[1] // step) > MAX_POINTS:
        step += 1
    return step


def linked(
    layers: dict[str, NDArray[np.float32]],
    rows: list[list[Panel]],
    tooltips: list[tuple[str, str]],
    pixel: float,
    axes: tuple[str, str],
) -> GridPlot:
    """Maps of one scan, or of one detector, that move together.

    Args:
        layers: images (rows, columns) of one shape, row 0 at the top; NaN is grey.
        rows: what is shown of them, row by row of the page.
        tooltips: names and values under the pointer, as `HoverTool` takes them: `@name` is the
            value of a layer, and also of `row` and `column`.
        pixel: length of a pixel of the images along either axis.
        axes: names of the axes, x and y, with their unit.
    """
    height, width = next(iter(layers.values())).shape
    step = shown_step((height, width))
    row, column = np.indices((height, width), np.uint16)
    whole: dict[str, NDArray[Any]] = {**layers, "row": row, "column": column}
    images = {name: [np.ascontiguousarray(part[::step, ::step])] for name, part in whole.items()}
    source = ColumnDataSource(images)
    across, down = Range1d(0, width * pixel), Range1d(height * pixel, 0)
    for moved in (across, down):
        moved.bounds = "auto"
    side = PANEL_PX / max(height, width)
    crosshair = CrosshairTool(
        overlay=[Span(dimension=name, line_alpha=0.4) for name in ("width", "height")]
    )
    scales = {panel.scale: panel.scale.mapper() for line in rows for panel in line}
    drawn: list[list[Any]] = []
    for line in rows:
        last = {panel.scale: panel for panel in line}
        drawn.append([])
        for number, panel in enumerate(line):
            plot = figure(
                title=panel.title,
                frame_width=max(_MIN_PANEL_PX, round(width * side)),
                frame_height=max(_MIN_PANEL_PX, round(height * side)),
                x_range=across,
                y_range=down,
                x_axis_label=axes[0],
                y_axis_label=axes[1] if number == 0 else None,
                tools="pan,box_zoom,save",
                toolbar_location=None,
            )
            mapper = scales[panel.scale]
            image = plot.image(
                panel.layer,
                source=source,
                x=0,
                y=0,
                dw=images["row"][0].shape[1] * step * pixel,
                dh=images["row"][0].shape[0] * step * pixel,
                color_mapper=mapper,
            )
            # The wheel alone scrolls the page.
            plot.add_tools(
                HoverTool(renderers=[image], tooltips=tooltips),
                WheelZoomTool(modifiers="ctrl"),
                ResetTool(),
                crosshair,
            )
            if last[panel.scale] is panel:
                plot.add_layout(panel.scale.bar(mapper), "right")
            plot.grid.visible = False
            drawn[-1].append(plot)
    return gridplot(drawn, toolbar_location="above", toolbar_options={"logo": None})


def embedded(plots: dict[str, GridPlot]) -> tuple[str, dict[str, str]]:
    """HTML of plots: what goes once into a page, and the place of each, by its name."""
    script, places = components(plots)
    return Resources(mode="inline", components=["bokeh"]).render() + script, places
