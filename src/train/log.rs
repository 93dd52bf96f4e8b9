//! A run's log: `metrics.jsonl`, and the TensorBoard events and curves that are drawn from its lines.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::run_dir::RunDir;
use crate::io::chart::{self, Curves};
use crate::io::tensorboard::EventWriter;
use crate::{Error, Result};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// First.
    Run(RunLine),
    /// Every optimiser step.
    Step(StepLine),
    /// Every validation.
    Val(ValLine),
    /// Last.
    End(EndLine),
}

/// What the run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// This program's version.
    pub version: String,
    /// The settings, as in `config.toml`.
    pub settings: Value,
    /// The device in words.
    pub device: String,
    /// Bytes that the plan gives the run.
    pub planned_device_bytes: u64,
    /// Classes or labels, images, parameters and whatever else is worth knowing.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Counted from 1 over the whole run.
    pub step: u64,
    /// Counted from 1.
    pub epoch: u64,
    /// The batch's loss before the update.
    pub loss: f64,
    /// The rate of this update.
    pub lr: f64,
    /// Training speed over this step.
    pub images_per_s: f64,
}

/// One validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValLine {
    /// The epoch that it closes, counted from 1.
    pub epoch: u64,
    /// Steps done by then.
    pub step: u64,
    /// Mean loss over the validation images.
    pub loss: f64,
    /// What early stopping and the plateau watch, 0 to 1.
    pub accuracy: f64,
    /// The task's other measures.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndLine {
    /// Most bytes held at once.
    pub peak_device_bytes: u64,
    /// Bytes that the plan gave.
    pub planned_device_bytes: u64,
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Epochs done, the best one and whatever else is worth knowing.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The log being written. A checkpoint stores [`RunLog::lines`] after [`RunLog::sync`]; [`RunLog::resume`] then drops
/// whatever was logged after it, so that the file of a killed and resumed run has the lines of an unbroken one.
#[derive(Debug)]
pub struct RunLog {
    dir: RunDir,
    path: PathBuf,
    file: File,
    lines: u64,
    curves: Curves,
    events: EventWriter,
}

impl RunLog {
    /// An empty log; one of a run that never reached a checkpoint is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn start(dir: &RunDir) -> Result<Self> {
        let path = dir.metrics();
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        let events = EventWriter::create(dir.path())?;
        Ok(Self { dir: dir.clone(), path, file, lines: 0, curves: Curves::default(), events })
    }

    /// The log as it stood when a checkpoint noted `lines`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file; [`Error::Input`] where it holds fewer lines or others than this program writes.
    pub fn resume(dir: &RunDir, lines: u64) -> Result<Self> {
        let path = dir.metrics();
        let io = |doing| {
            let path = path.clone();
            move |e| Error::io(doing, path, e)
        };
        let text = std::fs::read(&path).map_err(io("read"))?;
        let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
        // Whole lines only: a kill may have cut the last one.
        let kept: Vec<&[u8]> =
            text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")).take(wanted).collect();
        if kept.len() < wanted {
            return Err(Error::input(format!(
                "{}: expected the {lines} lines that the checkpoint knows, found {}; it was changed since, so start a new run",
                path.display(),
                kept.len()
            )));
        }
        let mut file = OpenOptions::new().write(true).open(&path).map_err(io("write"))?;
        let bytes = kept.iter().map(|line| line.len() as u64).sum();
        file.set_len(bytes).map_err(io("write"))?;
        file.seek(SeekFrom::End(0)).map_err(io("write"))?;
        let events = EventWriter::create(dir.path())?;
        let mut log = Self { dir: dir.clone(), path: path.clone(), file, lines, curves: Curves::default(), events };
        for (i, line) in kept.iter().enumerate() {
            let line = serde_json::from_slice(line).map_err(|e| {
                Error::input(format!("{} line {}: not a line of a run's log: {e}", path.display(), i + 1))
            })?;
            log.show(&line)?;
        }
        Ok(log)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let mut text =
            serde_json::to_string(line).map_err(|e| Error::Internal(format!("a log line is not JSON: {e}")))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|e| Error::io("write", &self.path, e))?;
        self.lines += 1;
        self.show(line)
    }

    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Flushes the lines to the disk.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))
    }

    /// Draws `curves.svg` from the lines so far.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_curves(&self) -> Result<()> {
        crate::io::atomic::write_file(&self.dir.curves(), chart::svg(&self.curves).as_bytes())
    }

    /// Adds a line to the curves and the events.
    fn show(&mut self, line: &Line) -> Result<()> {
        match line {
            Line::Step(line) => {
                self.curves.train_loss.push((line.step as f64, line.loss));
                self.events.scalars(line.step, &[("train/loss", line.loss), ("train/lr", line.lr)])
            }
            Line::Val(line) => {
                self.curves.val_loss.push((line.step as f64, line.loss));
                self.curves.val_accuracy.push((line.step as f64, line.accuracy));
                self.events.scalars(line.step, &[("val/loss", line.loss), ("val/accuracy", line.accuracy)])
            }
            Line::Run(_) | Line::End(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    fn step(step: u64) -> Line {
        Line::Step(StepLine { step, epoch: 1, loss: 1.0 / step as f64, lr: 0.1, images_per_s: 8.0 })
    }

    fn val(step: u64) -> Line {
        let more = Map::from_iter([("top5".to_owned(), Value::from(1.0))]);
        Line::Val(ValLine { epoch: 1, step, loss: 0.3, accuracy: 0.75, more })
    }

    fn new_run(parent: &std::path::Path) -> RunDir {
        RunDir::create(&TrainConfig { out: parent.join("run"), ..TrainConfig::default() }).unwrap()
    }

    #[test]
    fn lines_have_the_contract_s_keys_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let run = new_run(dir.path());
        let mut log = RunLog::start(&run).unwrap();
        let more = Map::from_iter([("classes".to_owned(), Value::from(3))]);
        let settings = Value::from(1);
        log.write(&Line::Run(RunLine {
            version: "1".into(),
            settings,
            device: "cpu".into(),
            planned_device_bytes: 5,
            more,
        }))
        .unwrap();
        log.write(&step(1)).unwrap();
        log.write(&val(1)).unwrap();
        let end = EndLine { peak_device_bytes: 4, planned_device_bytes: 5, wall_s: 1.5, more: Map::new() };
        log.write(&Line::End(end)).unwrap();
        assert_eq!(log.lines(), 4);
        let text = std::fs::read_to_string(run.metrics()).unwrap();
        let expected = concat!(
            r#"{"kind":"run","version":"1","settings":1,"device":"cpu","planned_device_bytes":5,"classes":3}"#,
            "\n",
            r#"{"kind":"step","step":1,"epoch":1,"loss":1.0,"lr":0.1,"images_per_s":8.0}"#,
            "\n",
            r#"{"kind":"val","epoch":1,"step":1,"loss":0.3,"accuracy":0.75,"top5":1.0}"#,
            "\n",
            r#"{"kind":"end","peak_device_bytes":4,"planned_device_bytes":5,"wall_s":1.5}"#,
            "\n"
        );
        assert_eq!(text, expected);
        for line in text.lines() {
            let read: Line = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), line);
        }
    }

    #[test]
    fn a_resumed_log_equals_an_unbroken_one() {
        let (broken_dir, whole_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (broken, whole) = (new_run(broken_dir.path()), new_run(whole_dir.path()));
        let lines = [step(1), step(2), val(2), step(3), step(4), val(4)];
        let mut unbroken = RunLog::start(&whole).unwrap();
        lines.iter().for_each(|line| unbroken.write(line).unwrap());
        unbroken.write_curves().unwrap();

        let mut log = RunLog::start(&broken).unwrap();
        lines[..3].iter().for_each(|line| log.write(line).unwrap());
        log.sync().unwrap();
        let noted = log.lines();
        log.write(&step(3)).unwrap();
        drop(log);
        // Killed in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(broken.metrics()).unwrap();
        file.write_all(br#"{"kind":"st"#).unwrap();

        let mut log = RunLog::resume(&broken, noted).unwrap();
        lines[3..].iter().for_each(|line| log.write(line).unwrap());
        log.write_curves().unwrap();
        assert_eq!(log.lines(), 6);
        for file in [RunDir::metrics, RunDir::curves] {
            assert!(
                std::fs::read(file(&broken)).unwrap() == std::fs::read(file(&whole)).unwrap(),
                "{:?}",
                file(&broken)
            );
        }
    }

    #[test]
    fn a_log_that_lost_lines_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = new_run(dir.path());
        RunLog::start(&run).unwrap().write(&step(1)).unwrap();
        let error = RunLog::resume(&run, 2).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl") && error.contains("found 1"), "{error}");
        std::fs::write(run.metrics(), "{}\n").unwrap();
        assert!(RunLog::resume(&run, 1).unwrap_err().to_string().contains("line 1"));
    }
}
