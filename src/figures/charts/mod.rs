//! Charts as SVG, drawn by the server: they need no script, are read by screen readers, and are
//! downloaded as files.

pub(crate) mod agreement;
pub(crate) mod forest;
pub(crate) mod heat;
pub(crate) mod histogram;
pub(crate) mod plane;
pub(crate) mod strip;

use maud::{Markup, PreEscaped, html};

/// Colours of charts by class, for documents of their own.
const STYLE: &str = include_str!("../../../assets/pages/chart.css");

/// A chart with a name that is unique on its page. Its colours come from `chart.css`, by class.
pub(crate) struct Chart {
    /// Name in addresses and of the file.
    pub(crate) name: &'static str,
    /// Title, which is also the accessible name.
    pub(crate) title: String,
    /// What the chart shows, for those who do not see it.
    pub(crate) description: String,
    /// Width and height in units of the drawing, about CSS pixels.
    pub(crate) size: (f64, f64),
    /// Elements of the SVG.
    pub(crate) content: Markup,
}

impl Chart {
    /// Renders the chart for a page; `svg` is the address of the download, if it has one.
    pub(crate) fn figure(&self, svg: Option<&str>) -> Markup {
        html! {
            figure.chart {
                figcaption {
                    (self.title)
                    @if let Some(svg) = svg { " " a.fine download href=(svg) { "SVG" } }
                }
                div.scroll tabindex="0" role="region" aria-label=(self.title) { (self.svg(None)) }
            }
        }
    }

    /// Renders an SVG document of its own.
    pub(crate) fn document(&self) -> String {
        let svg = self.svg(Some(STYLE)).into_string();
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{svg}\n")
    }

    fn svg(&self, style: Option<&str>) -> Markup {
        let (width, height) = self.size;
        let (title, description) = (format!("{}-title", self.name), format!("{}-text", self.name));
        html! {
            svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img"
                viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height)
                aria-labelledby=(format!("{title} {description}")) {
                title id=(title) { (self.title) }
                desc id=(description) { (self.description) }
                @if let Some(style) = style {
                    style { (PreEscaped(style)) }
                    rect.paper width=(width) height=(height) {}
                }
                (self.content)
            }
        }
    }
}

/// A linear scale from values to positions, with round ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Creates a scale over these values, which need not be finite, with about `ticks` ticks. It
    /// maps them to positions from `from` to `to`.
    pub(crate) fn new(
        values: impl IntoIterator<Item = f64>,
        ticks: usize,
        (from, to): (f64, f64),
    ) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let (low, high) = if high - low < 1e-9 * high.abs().max(1e-3) {
            let half = (low.abs() * 0.05).max(1e-3);
            (low - half, high + half)
        } else {
            (low, high)
        };
        let raw = (high - low) / ticks.max(1) as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= raw * 0.999)
            .unwrap_or(raw);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high, step, from, to }
    }

    /// Returns the position of a value.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        let position = self.from + share.clamp(0.0, 1.0) * (self.to - self.from);
        (position * 10.0).round() / 10.0
    }

    /// Returns the ticks: values with their positions and labels.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        let decimals = (-self.step.log10().floor()).clamp(0.0, 8.0) as usize;
        // A step of 2.5 has a digit more than its power of ten.
        let digits = self.step / 10_f64.powf(self.step.log10().floor());
        let decimals = decimals + usize::from((digits - 2.5).abs() < 1e-6);
        (0..=count)
            .map(|at| self.low + at as f64 * self.step)
            .map(|value| (self.at(value), crate::figures::number::rounded(value, decimals)))
            .collect()
    }
}

/// Returns a name as a label of at most so many characters. It is isolated, so that its direction
/// does not reach the text around it.
pub(crate) fn label(name: &str, most: usize) -> String {
    format!("\u{2068}{}\u{2069}", clip(name, most))
}

/// Returns a text of at most so many characters.
pub(crate) fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let cut: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_round_ends_and_ticks() {
        let scale = Scale::new([0.013, 0.094], 4, (0.0, 100.0));
        let labels: Vec<_> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.000", "0.025", "0.050", "0.075", "0.100"]);
        assert!((scale.at(0.05) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn equal_missing_and_infinite_values_have_a_scale() {
        for values in [vec![], vec![0.5], vec![0.0, 0.0], vec![f64::NAN, f64::INFINITY]] {
            let scale = Scale::new(values.clone(), 4, (0.0, 10.0));
            assert!(scale.at(0.5).is_finite() && scale.ticks().len() > 1, "{values:?}");
        }
    }
}
