//! The courses of several methods in one picture: a line for the mean, a band of one deviation around it.
use super::{Curve, Quantity, Spread};
use graft_ir::{Code, Error, Result};
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 440);
/// At most this many points are drawn of a curve.
const MAX_POINTS: usize = 400;
/// Colours that stay apart for every kind of sight: Okabe and Ito's, white and black aside.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// The picture of a quantity as SVG that stands by itself.
///
/// # Errors
/// [`Code::IO`] where it cannot be drawn.
pub fn svg(quantity: Quantity, curves: &[(String, Curve)]) -> Result<String> {
    let mut picture = String::new();
    draw(&mut picture, quantity, curves)
        .map_err(|e| Error::new(Code::IO, format!("the curves cannot be drawn: {e}")))?;
    Ok(picture)
}

fn draw(
    picture: &mut String,
    quantity: Quantity,
    curves: &[(String, Curve)],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points: Vec<Vec<(f64, Spread)>> = curves.iter().map(|(_, curve)| thinned(curve)).collect();
    let (last, (low, high)) = extent(&points);
    let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last, low..high)?;
    let font = ("sans-serif", 14);
    let step = |x: &f64| format!("{x:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).label_style(font).axis_desc_style(font);
    mesh.x_label_formatter(&step).x_desc("step").y_desc(quantity.name()).draw()?;
    for (((label, _), points), colour) in curves.iter().zip(&points).zip(COLOURS.iter().cycle().copied()) {
        let above = points.iter().map(|(x, s)| (*x, s.mean + s.deviation));
        let below = points.iter().rev().map(|(x, s)| (*x, s.mean - s.deviation));
        chart.draw_series([Polygon::new(above.chain(below).collect::<Vec<_>>(), colour.mix(0.15))])?;
        let line = points.iter().map(|(x, s)| (*x, s.mean));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    // Where curves that go well do not come to.
    let corner = match quantity {
        Quantity::Accuracy => SeriesLabelPosition::LowerRight,
        Quantity::EvalLoss | Quantity::Loss => SeriesLabelPosition::UpperRight,
    };
    let mut labels = chart.configure_series_labels();
    labels.position(corner).label_font(font).border_style(BLACK).background_style(WHITE.mix(0.85)).draw()?;
    area.present()?;
    Ok(())
}

/// The last step, and the range of the bands with a margin.
fn extent(points: &[Vec<(f64, Spread)>]) -> (f64, (f64, f64)) {
    let all = || points.iter().flatten();
    let ends = all().flat_map(|(_, s)| [s.mean - s.deviation, s.mean + s.deviation]);
    let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = ((high - low) * 0.05).max(1e-6);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    (last, (low - margin, high + margin))
}

/// Every n-th point and the last, so that the picture stays small; what is not finite cannot be drawn.
fn thinned(curve: &Curve) -> Vec<(f64, Spread)> {
    let every = curve.0.len().div_ceil(MAX_POINTS).max(1);
    let is_last = |i: usize| i + 1 == curve.0.len();
    let points = curve.0.iter().enumerate().filter(|(i, _)| i % every == 0 || is_last(*i)).map(|(_, p)| p);
    let is_finite = |s: &Spread| s.mean.is_finite() && s.deviation.is_finite();
    points.filter(|(_, s)| is_finite(s)).map(|(step, s)| (*step as f64, *s)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_curves_can_be_drawn() {
        let point = |step: u64, mean: f64| (step, Spread { mean, deviation: 0.1 });
        let long = Curve((1..9000).map(|s| point(s, 1.0 / s as f64)).collect());
        let broken = Curve(vec![point(1, f64::NAN), point(2, 1.0)]);
        for curves in [
            vec![],
            vec![("none".to_string(), Curve::default())],
            vec![("a < b & c".to_string(), long), ("broken".into(), broken)],
        ] {
            let picture = svg(Quantity::Loss, &curves).unwrap();
            assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
            assert!(picture.len() < 100_000 && !picture.contains("NaN") && !picture.contains("a < b"));
            assert_eq!(picture, svg(Quantity::Loss, &curves).unwrap());
        }
    }
}
