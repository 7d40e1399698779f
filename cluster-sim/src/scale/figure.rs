//! A run as a figure (SVG) and as a chart for a terminal.

use std::fmt::Write;

use super::report::{Report, Sample};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
const PANEL: f64 = 128.0;
const GAP: f64 = 40.0;
const TOP: f64 = 52.0;
/// Points of a line: more than there are pixels show nothing more.
const POINTS_MAX: usize = 800;

type Value = fn(&Sample) -> f64;

/// One line of a panel.
struct Line {
    name: &'static str,
    colour: &'static str,
    value: Value,
}

struct Panel {
    title: &'static str,
    unit: &'static str,
    /// Powers of ten are equally far apart.
    logarithmic: bool,
    lines: Vec<Line>,
}

fn line(name: &'static str, colour: &'static str, value: Value) -> Line {
    Line {
        name,
        colour,
        value,
    }
}

fn panels() -> Vec<Panel> {
    let panel = |title, unit, logarithmic, lines| Panel {
        title,
        unit,
        logarithmic,
        lines,
    };
    let (blue, orange, green, red) = ("#2563eb", "#ea7317", "#15924f", "#cf2f3d");
    let grey = "#8a94a6";
    vec![
        panel(
            "Requests a second",
            "",
            true,
            vec![
                line("capacity", green, |s| s.capacity_rps),
                line("demand", grey, |s| s.demand_rps),
                line("served", blue, |s| s.served_rps),
            ],
        ),
        panel(
            "Latency",
            " ms",
            true,
            vec![
                line("p99", orange, |s| s.p99_ms),
                line("p50", blue, |s| s.p50_ms),
            ],
        ),
        panel(
            "Nodes, primaries and replicas",
            "",
            false,
            vec![line("nodes", blue, |s| s.nodes as f64)],
        ),
        panel(
            "Moves under way",
            "",
            false,
            vec![
                line("of slots", blue, |s| s.migrations as f64),
                line("of nodes, all tenants", orange, |s| s.evictions as f64),
            ],
        ),
        panel(
            "Heat of hosts, share of CPU or network in use",
            "",
            false,
            vec![
                line("hottest", red, |s| s.heat_max),
                line("mean", grey, |s| s.heat_mean),
            ],
        ),
        panel(
            "Cost, in hosts",
            "",
            false,
            vec![
                line("sized for the peak", grey, |s| s.hosts_fixed),
                line("as used", green, |s| s.hosts_used),
            ],
        ),
    ]
}

impl Report {
    /// The run as a figure: demand, capacity, latencies, nodes, moves, heat and cost over time.
    #[must_use]
    pub fn svg(&self) -> String {
        let panels = panels();
        let height = TOP + panels.len() as f64 * (PANEL + GAP) + 8.0;
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\" fill=\"#1c2430\">{}</text>\n\
             <text x=\"{}\" y=\"24\" text-anchor=\"end\" fill=\"#5b6676\">simulated, seed {}, {} hosts, \
             {} tenants</text>\n",
            self.summary.scenario,
            WIDTH - 16.0,
            self.summary.seed,
            self.summary.hosts,
            self.summary.tenants,
        );
        for (index, panel) in panels.iter().enumerate() {
            self.draw(&mut svg, panel, TOP + index as f64 * (PANEL + GAP));
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The highest value of every stretch of time, so that no peak is lost.
    fn points(&self, value: Value, count: usize) -> Vec<(f64, f64)> {
        let each = self.samples.len().div_ceil(count.max(1)).max(1);
        let chunks = self.samples.chunks(each);
        let highest = |chunk: &[Sample]| {
            let time = chunk.first().map_or(0.0, |sample| sample.t_s);
            (time, chunk.iter().map(value).fold(f64::MIN, f64::max))
        };
        chunks.map(highest).collect()
    }

    fn draw(&self, svg: &mut String, panel: &Panel, top: f64) {
        let end_s = self
            .samples
            .last()
            .map_or(1.0, |sample| sample.t_s)
            .max(1.0);
        let drawn: Vec<Vec<(f64, f64)>> = panel
            .lines
            .iter()
            .map(|line| self.points(line.value, POINTS_MAX))
            .collect();
        let values = || drawn.iter().flatten().map(|point| point.1);
        let highest = values().fold(0.0, f64::max).max(1e-9);
        let lowest = values().filter(|v| *v > 0.0).fold(highest, f64::min);
        let (low, high) = if panel.logarithmic {
            (lowest.log10().floor(), highest.log10().ceil())
        } else {
            (0.0, round_up(highest))
        };
        let high = if high > low { high } else { low + 1.0 };
        let y = |value: f64| {
            let value = if panel.logarithmic {
                value.max(1e-9).log10()
            } else {
                value
            };
            top + PANEL * (1.0 - ((value - low) / (high - low)).clamp(0.0, 1.0))
        };
        let x = |time: f64| LEFT + (WIDTH - LEFT - RIGHT) * time / end_s;
        let levels = ticks(low, high, panel.logarithmic);
        let levels: Vec<_> = levels.into_iter().map(|value| (y(value), value)).collect();
        draw_frame(svg, panel, top, &levels, end_s);
        for (place, (line, points)) in panel.lines.iter().zip(&drawn).enumerate() {
            let mut path = String::new();
            for (index, (time, value)) in points.iter().enumerate() {
                let pen = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{pen}{:.1} {:.1}", x(*time), y(*value));
            }
            let _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" \
                 stroke-linejoin=\"round\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
                line.colour,
                WIDTH - RIGHT + 10.0,
                top + 14.0 + 18.0 * place as f64,
                line.colour,
                line.name
            );
        }
    }

    /// The run, or what there is of it, as a chart of text: demand, capacity and p99 over time, and the
    /// last figures. It is as wide as so many samples need.
    #[must_use]
    pub fn chart(&self, columns: usize, samples: usize) -> String {
        let shown = &self.samples;
        let columns = columns.clamp(20, 200).saturating_sub(26);
        let mut text = String::new();
        let rows: [(&str, Value); 7] = [
            ("demand rps", |s| s.demand_rps),
            ("served rps", |s| s.served_rps),
            ("capacity rps", |s| s.capacity_rps),
            ("p50 ms", |s| s.p50_ms),
            ("p99 ms", |s| s.p99_ms),
            ("nodes", |s| s.nodes as f64),
            ("hottest host", |s| s.heat_max),
        ];
        let last = shown.last().copied().unwrap_or_default();
        for (name, value) in rows {
            let highest = shown.iter().map(value).fold(1e-9, f64::max);
            let each = samples.div_ceil(columns).max(1);
            let bar: String = shown
                .chunks(each)
                .map(|chunk| chunk.iter().map(value).fold(0.0, f64::max) / highest)
                .map(block)
                .collect();
            let now = short(value(&last));
            let _ = writeln!(text, "{name:>12} {now:>8}  {bar:<columns$}");
        }
        let _ = writeln!(text, "{:>12} {:>8}", "time", clock(last.t_s));
        text
    }
}

/// A panel's title, its levels, each with its place, and the times below.
fn draw_frame(svg: &mut String, panel: &Panel, top: f64, levels: &[(f64, f64)], end_s: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\" fill=\"#1c2430\">{}</text>",
        top - 8.0,
        panel.title
    );
    for (at, value) in levels {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#e3e7ee\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\" fill=\"#5b6676\">{}{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            short(*value),
            panel.unit
        );
    }
    for step in 0..=6 {
        let time = end_s * f64::from(step) / 6.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#8a94a6\" \
                 font-size=\"10\">{}</text>",
            LEFT + (WIDTH - LEFT - RIGHT) * time / end_s,
            top + PANEL + 14.0,
            clock(time)
        );
    }
}

fn block(share: f64) -> char {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = super::world::bytes_of((share * 8.0).ceil().clamp(0.0, 8.0));
    let level = usize::try_from(level).unwrap_or_default();
    BLOCKS.get(level).copied().unwrap_or('█')
}

/// The next of 1, 2, 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|step| step * unit)
        .into_iter()
        .find(|step| *step >= value * 0.9999)
        .unwrap_or(10.0 * unit)
}

fn ticks(low: f64, high: f64, logarithmic: bool) -> Vec<f64> {
    if logarithmic {
        let mut exponents = Vec::new();
        let mut exponent = low;
        while exponent <= high {
            exponents.push(10_f64.powf(exponent));
            exponent += 1.0;
        }
        return exponents;
    }
    [0.0, 0.5, 1.0].map(|share| high * share).to_vec()
}

fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    format!("{text}{unit}")
}

fn clock(seconds: f64) -> String {
    let whole = super::world::bytes_of(seconds.round());
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02} h")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.25, 12.0, 1_500.0].map(short), ["0.25", "12", "1500"]);
        assert_eq!([25_000.0, 5e6, 1.25e6].map(short), ["25k", "5M", "1.25M"]);
        assert_eq!([0.0, 75.0, 7_260.0].map(clock), ["0:00", "1:15", "2:01 h"]);
        assert_eq!([0.3, 12.0, 60.0].map(round_up), [0.5, 20.0, 100.0]);
    }
}
