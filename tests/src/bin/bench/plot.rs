//! Plots of the figures, as SVG: a text that tells its changes apart and reads well at any size.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x33, 0x3b);
const GRID: RGBColor = RGBColor(0xe3, 0xe8, 0xea);
/// Told apart by people who do not see all colours: Okabe and Ito's.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
];

/// One figure of every group.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Which of the group's bars it is a part of. Parts of one bar stand on each other, the first at the bottom.
    pub(crate) bar: usize,
    /// In the order of the groups.
    pub(crate) values: Vec<f64>,
}

/// Draws a group of bars per name in `groups`, and writes them to `file`.
pub(crate) fn bars(
    file: &Path,
    title: &str,
    unit: &str,
    groups: &[&str],
    series: &[Series],
) -> anyhow::Result<()> {
    let bars = series.iter().map(|one| one.bar + 1).max().unwrap_or(1);
    let height = |group: usize, bar: usize| -> f64 {
        let parts = series.iter().filter(|one| one.bar == bar);
        parts.map(|one| one.values[group]).sum()
    };
    let heights = (0..groups.len()).flat_map(|group| (0..bars).map(move |bar| (group, bar)));
    let highest = heights.map(|(group, bar)| height(group, bar));
    let highest = highest.fold(0.0, f64::max);

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let style = |size: u32| (FONT, size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, style(20))
        .margin(16)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..figure(groups.len()), 0.0..highest * 1.3)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .axis_style(INK)
        .label_style(style(14))
        .y_desc(unit)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;

    // A tenth of a group's width is left free on both sides.
    let width = 0.8 / figure(bars);
    let left = |group: usize, bar: usize| figure(group) + 0.1 + width * figure(bar);
    for (number, one) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let below = |group: usize| -> f64 {
            let parts = series[..number].iter().filter(|part| part.bar == one.bar);
            parts.map(|part| part.values[group]).sum()
        };
        let parts = one.values.iter().enumerate().map(|(group, value)| {
            let (x, y) = (left(group, one.bar), below(group));
            let corners = [(x, y), (x + width * 0.92, y + value)];
            Rectangle::new(corners, colour.filled())
        });
        chart
            .draw_series(parts)?
            .label(one.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }

    let above = style(12).pos(Pos::new(HPos::Center, VPos::Bottom));
    let under = style(14).pos(Pos::new(HPos::Center, VPos::Top));
    for (group, name) in groups.iter().enumerate() {
        for bar in 0..bars {
            let value = height(group, bar);
            let (x, y) = chart.backend_coord(&(left(group, bar) + width * 0.46, value));
            area.draw_text(&format!("{value:.0}"), &above, (x, y - 4))?;
        }
        let (x, y) = chart.backend_coord(&(figure(group) + 0.5, 0.0));
        area.draw_text(name, &under, (x, y + 8))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .label_font(style(14))
        .draw()?;
    area.present()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
fn figure(count: usize) -> f64 {
    count as f64
}
