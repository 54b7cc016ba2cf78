//! `metrics.jsonl`: one object for each step and each evaluation, and what is read back from it.
use crate::routing::Routing;
use graft_ir::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

/// A step, counted from 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step.
    pub step: u64,
    /// The loss of its rows before its update.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Tokens (padding not counted) for each second.
    pub tokens_per_s: f64,
    /// What the adapters' method adds to the loss, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
}

/// An evaluation after a step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// The step after which it was made.
    pub step: u64,
    /// The mean loss over the evaluation data.
    pub eval_loss: f64,
    /// The share of rows whose highest logit is the label's, where labels are classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

impl fmt::Display for Evaluation {
    /// `evaluation loss 0.2376, accuracy 91.17 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evaluation loss {:.4}", self.eval_loss)?;
        self.accuracy.map_or(Ok(()), |accuracy| write!(f, ", accuracy {:.2} %", 100.0 * accuracy))
    }
}

/// How many ranks of each adapter count after a step, where that has changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct RankMetrics {
    /// The step; 0 before the first.
    pub(crate) step: u64,
    /// The ranks by module path.
    pub(crate) ranks: BTreeMap<String, usize>,
}

/// What the routers of a HydraLoRA do at the end of a run, on the rows of one domain.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct RoutingMetrics {
    /// The last step.
    pub(crate) step: u64,
    /// The rows that the mean is over.
    pub(crate) domain: String,
    /// The mean probability of each head, by module path.
    pub(crate) routing: Routing,
}

/// A line of the file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Step(StepMetrics),
    Evaluation(Evaluation),
    Ranks(RankMetrics),
    Routing(RoutingMetrics),
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Line::Step(m) => m.step,
            Line::Evaluation(e) => e.step,
            Line::Ranks(r) => r.step,
            Line::Routing(r) => r.step,
        }
    }
}

/// The file, open for appending, and its content.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
}

impl Metrics {
    /// Begins anew after `step`: later lines of an existing file, which an interrupted run wrote after its last save,
    /// are dropped; at step 0 all are.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Metrics> {
        let mut lines = if step == 0 { Vec::new() } else { read(path)? };
        lines.retain(|line| line.step() <= step);
        let text: String = lines.iter().map(json).collect();
        graft_onnx::atomic_write(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| failed(path, &e))?;
        Ok(Metrics { path: path.into(), file, lines })
    }
    /// Appends a line; it reaches the file at once.
    pub(crate) fn push(&mut self, line: Line) -> Result<()> {
        self.file.write_all(json(&line).as_bytes()).map_err(|e| failed(&self.path, &e))?;
        self.lines.push(line);
        Ok(())
    }
    /// Every line so far.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).expect("numbers print") + "\n"
}

/// The lines of an existing file; a last line that was cut off is dropped.
fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(|e| failed(path, &e))?;
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            let place = format!("{}, line {}", path.display(), i + 1);
            Error::new(Code::STATE, format!("not a line of metrics: {e}")).at(place)
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::new(Code::IO, format!("cannot read or write: {e}")).at(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Line {
        let loss = f64::from(1.127_344_7_f32) / step as f64;
        Line::Step(StepMetrics { step, loss, lr: 0.01, grad_norm: 2.5, tokens_per_s: 100.0, penalty: None })
    }

    #[test]
    fn a_resumed_run_drops_what_came_after_its_save() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=5).for_each(|s| metrics.push(step(s)).unwrap());
        let evaluation = Evaluation { step: 5, eval_loss: 0.5, accuracy: None };
        metrics.push(Line::Evaluation(evaluation)).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"step\":6,\"lo").unwrap();

        let mut resumed = Metrics::open(&path, 3).unwrap();
        assert_eq!(resumed.lines(), [step(1), step(2), step(3)]);
        resumed.push(step(4)).unwrap();
        assert_eq!(read(&path).unwrap(), [step(1), step(2), step(3), step(4)]);
        assert!(Metrics::open(&path, 0).unwrap().lines().is_empty());
    }

    #[test]
    fn lines_have_the_promised_form() {
        assert!(
            json(&step(1)).starts_with(r#"{"step":1,"loss":1.1273447275161743,"lr":0.01,"grad_norm":2.5,"#)
        );
        let line = Line::Evaluation(Evaluation { step: 2, eval_loss: 0.25, accuracy: Some(0.5) });
        assert_eq!(json(&line), "{\"step\":2,\"eval_loss\":0.25,\"accuracy\":0.5}\n");
    }
}
