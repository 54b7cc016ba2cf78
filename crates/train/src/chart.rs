//! `loss.svg`: the losses of a run over its steps.
use crate::metrics::{Evaluation, Line, StepMetrics};
use graft_ir::{Code, Error, Result};
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 480);
/// At most this many points are drawn of a curve.
const MAX_POINTS: usize = 2000;

/// The picture; the loss of each step, its running mean, and the evaluations.
pub(crate) fn svg(lines: &[Line]) -> Result<String> {
    let mut picture = String::new();
    draw(&mut picture, lines).map_err(|e| Error::new(Code::IO, format!("the loss cannot be drawn: {e}")))?;
    Ok(picture)
}

fn draw(picture: &mut String, lines: &[Line]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let steps: Vec<(f64, f64)> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Step(StepMetrics { step, loss, .. }) => Some((*step as f64, *loss)),
            _ => None,
        })
        .collect();
    let evaluations: Vec<(f64, f64)> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Evaluation(Evaluation { step, eval_loss, .. }) => Some((*step as f64, *eval_loss)),
            _ => None,
        })
        .collect();
    let losses = || steps.iter().chain(&evaluations).map(|p| p.1).filter(|l| l.is_finite());
    let (low, high) = losses().fold((f64::MAX, f64::MIN), |(low, high), l| (low.min(l), high.max(l)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = ((high - low) * 0.05).max(1e-6);
    let last = steps.last().map_or(1.0, |p| p.0).max(2.0);

    let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(1.0..last, low - margin..high + margin)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("step").y_desc("loss").draw()?;
    let pale = RGBColor(170, 190, 220);
    chart.draw_series(LineSeries::new(thinned(&steps), pale))?.label("loss").legend(legend(pale));
    let strong = RGBColor(30, 80, 160);
    chart
        .draw_series(LineSeries::new(thinned(&running_mean(&steps)), strong.stroke_width(2)))?
        .label("running mean")
        .legend(legend(strong));
    if !evaluations.is_empty() {
        let red = RGBColor(190, 40, 40);
        chart
            .draw_series(LineSeries::new(evaluations, red.stroke_width(2)).point_size(3))?
            .label("evaluation")
            .legend(legend(red));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}

fn legend(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour)
}

/// The exponential mean with a span of a fiftieth of the run, its start corrected for the missing past.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mean = |&(x, y): &(f64, f64)| {
        sum = keep * sum + y;
        weight = keep * weight + 1.0;
        (x, sum / weight)
    };
    points.iter().map(mean).collect()
}

/// Every n-th point, so that the picture stays small.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    points.iter().copied().step_by(every).filter(|p| p.1.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_any_run() {
        let line = |step: u64, loss: f64| {
            Line::Step(StepMetrics { step, loss, lr: 0.1, grad_norm: 1.0, tokens_per_s: 1.0, penalty: None })
        };
        let evaluation = Line::Evaluation(Evaluation { step: 3, eval_loss: 1.0, accuracy: None });
        for lines in [
            vec![],
            vec![line(1, 2.0)],
            vec![line(1, 1.0), line(2, 1.0), line(3, f64::NAN), evaluation],
            (1..9000).map(|s| line(s, 1.0 / s as f64)).collect(),
        ] {
            let picture = svg(&lines).unwrap();
            assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
            assert!(picture.len() < 300_000);
            assert_eq!(picture, svg(&lines).unwrap());
        }
    }

    #[test]
    fn a_constant_has_itself_as_mean() {
        let points: Vec<(f64, f64)> = (0..500).map(|i| (f64::from(i), 3.0)).collect();
        assert!(running_mean(&points).iter().all(|p| (p.1 - 3.0).abs() < 1e-12));
    }
}
