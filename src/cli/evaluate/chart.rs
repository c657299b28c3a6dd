//! A chart of lines as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 56.0;
const COLORS: [&str; 6] = ["#777777", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#ff7f0e"];
/// Marks of each axis.
const MARKS: usize = 5;

/// A line through points.
pub(super) struct ChartLine {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over two axes, whose ends are those of the points.
pub(super) fn svg(title: &str, x_name: &str, y_name: &str, lines: &[ChartLine]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (x_min, x_max) = ends(points().map(|point| point.0));
    let (y_min, y_max) = ends(points().map(|point| point.1));
    let place = |x: f64, y: f64| {
        let across = MARGIN + (x - x_min) / (x_max - x_min) * (WIDTH - 2.0 * MARGIN);
        let down = HEIGHT - MARGIN - (y - y_min) / (y_max - y_min) * (HEIGHT - 2.0 * MARGIN);
        (across, down)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, words: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        );
    };
    text(&mut svg, WIDTH / 2.0, 20.0, "middle", title);
    text(&mut svg, WIDTH / 2.0, HEIGHT - 12.0, "middle", x_name);
    text(&mut svg, MARGIN, MARGIN - 12.0, "middle", y_name);
    for mark in 0..=MARKS {
        let part = mark as f64 / MARKS as f64;
        let (x, y) = (x_min + part * (x_max - x_min), y_min + part * (y_max - y_min));
        let (across, down) = place(x, y);
        let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {down:.1}H{right}M{across:.1} {MARGIN}V{bottom}\" stroke=\"#dddddd\"/>"
        );
        text(&mut svg, across, bottom + 16.0, "middle", &format!("{x:.2}"));
        text(&mut svg, MARGIN - 6.0, down + 4.0, "end", &format!("{y:.3}"));
    }
    for (number, line) in lines.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let path: Vec<String> = line
            .points
            .iter()
            .map(|&(x, y)| {
                let (across, down) = place(x, y);
                format!("{across:.1},{down:.1}")
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            path.join(" ")
        );
        let down = MARGIN + 14.0 + 15.0 * number as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {:.1}h18\" stroke=\"{color}\" stroke-width=\"3\"/>",
            MARGIN + 8.0,
            down - 4.0
        );
        text(&mut svg, MARGIN + 32.0, down, "start", &line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The smallest and the largest, never equal.
fn ends(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        numbers.fold((f64::MAX, f64::MIN), |(low, high), number| (low.min(number), high.max(number)));
    if low > high {
        return (0.0, 1.0);
    }
    if low == high { (low, low + 1e-3) } else { (low, high) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_within_the_axes_and_names_are_escaped() {
        let lines = [
            ChartLine { name: "a < b".into(), points: vec![(0.0, 0.5), (1.0, 1.0)] },
            ChartLine { name: "one point".into(), points: vec![(0.5, 0.75)] },
            ChartLine { name: "none".into(), points: Vec::new() },
        ];
        let svg = svg("title", "x", "y", &lines);
        assert!(svg.contains("a &lt; b") && svg.contains("points=\"56.0,364.0 584.0,56.0\""), "{svg}");
        assert!(svg.contains("points=\"320.0,210.0\""), "{svg}");
        assert_eq!(ends(std::iter::empty()), (0.0, 1.0));
        assert!(ends([3.0].into_iter()).1 > 3.0);
    }
}
