//! The commands on a GPU: train, resume after a kill, eval, predict, plan.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "commands::a_run_is_planned_evaluated_and_used", needs: Needs::Gpu, run: from_train_to_predict },
    Test { name: "commands::a_killed_run_ends_with_the_same_bits", needs: Needs::Gpu, run: killed_and_resumed },
    Test { name: "commands::switches_change_no_bit", needs: Needs::Gpu, run: switches },
    Test { name: "commands::every_task_with_every_strategy", needs: Needs::Gpu, run: tasks },
    Test { name: "commands::what_a_gpu_cannot_do_is_one_line", needs: Needs::Gpu, run: refusals },
];

/// The executable: beside this test where they were collected, else where cargo built it.
fn peftk() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("peftk");
    if beside.is_file() { beside } else { PathBuf::from(env!("CARGO_BIN_EXE_peftk")) }
}

pub fn command(line: &str) -> Command {
    let mut command = Command::new(peftk());
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

pub fn run(line: &str) -> Output {
    let output = command(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn lines(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn from_train_to_predict() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for flags in ["", "--strategy full --lr 1e-4", "--strategy freeze", "--strategy lora --memory lean --precision f32"]
    {
        let _ = std::fs::remove_dir_all(&out);
        let (flags, run_dir) = (format!("--device cuda --epochs 2 {flags}"), out.display());
        run(&format!("train {flags} --out {run_dir}"));
        let lines = lines(&out);
        let end = lines.last().unwrap();
        assert_eq!(end["kind"], "end");
        let (planned, peak) =
            (end["planned_device_bytes"].as_u64().unwrap(), end["peak_device_bytes"].as_u64().unwrap());
        assert!(planned.abs_diff(peak) * 100 <= planned, "{flags}: planned {planned}, peak {peak}");
        let losses: Vec<f64> =
            lines.iter().filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[losses.len() - 10..]) < mean(&losses[..10]), "{flags}: nothing was learnt");
        // The bars and the total of the plan are those of the run.
        let plan = String::from_utf8(run(&format!("plan {flags}")).stdout).unwrap();
        assert!(plan.contains(&planned.to_string()), "{flags}: {planned} is not in\n{plan}");
        let image = crate::measure::data().join("dora_qv/data/c0/0.png");
        let on = |device: &str| -> Vec<f64> {
            let output = run(&format!("predict --model {run_dir} --device {device} --json {}", image.display()));
            let line: Value = serde_json::from_slice(&output.stdout).unwrap();
            line["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let (gpu, cpu) = (on("cuda"), on("cpu"));
        let most = cpu.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let wrong = gpu.iter().zip(&cpu).fold(0.0_f64, |wrong, (a, b)| wrong.max((a - b).abs()));
        assert!(wrong < 5e-2 * most, "{flags}: logits {wrong} apart, the largest is {most}");
    }
}

fn killed_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let flags = "train --device cuda --epochs 3 --lora-dropout 0.1 --strategy dora";
    run(&format!("{flags} --out {}", whole.display()));
    let mut line = format!("{flags} --out {}", cut.display());
    for milliseconds in [900, 1100, 1300] {
        let mut child =
            command(&line).env("PEFTK_SAVE_EVERY_S", "0").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if cut.join("last").exists() {
            line = format!("train --out {} --resume", cut.display());
        } else {
            let _ = std::fs::remove_dir_all(&cut);
        }
    }
    run(&line);
    for file in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "labels.json", "config.toml"] {
        let [a, b] = [&whole, &cut].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(a == b, "{file} differs between a run in one piece and one that was killed");
    }
    let losses = |run: &Path| -> Vec<Value> {
        lines(run).into_iter().filter(|line| line["kind"] == "step").map(|line| line["loss"].clone()).collect()
    };
    assert_eq!(losses(&whole), losses(&cut));
}

/// The golden images in folders within folders, in a table of labels of which some are unknown, and by class.
/// Kernels that come in early or not, recorded or not, compiled by the driver or before: the losses of the same steps are the same.
fn switches() {
    for strategy in ["full", "dora"] {
        let loss = |switch: Option<(&str, &str)>| {
            let line = format!(
                "bench --device cuda --size micro --strategy {strategy} --batch-size 32 --steps 4 --json --quiet"
            );
            let output = command(&line).envs(switch).output().unwrap();
            assert!(output.status.success(), "{switch:?}: {}", String::from_utf8_lossy(&output.stderr));
            let line: Value = serde_json::from_slice(&output.stdout).unwrap();
            line["loss"].as_f64().unwrap()
        };
        let usual = loss(None);
        for switch in [("PEFTK_PDL", "0"), ("PEFTK_GRAPHS", "0"), ("PEFTK_PTX", "1")] {
            assert_eq!(loss(Some(switch)).to_bits(), usual.to_bits(), "{strategy}, {switch:?}");
        }
    }
}

pub fn laid_out(dir: &Path, task: &str) {
    let images = crate::measure::data().join("multilabel/data");
    std::fs::create_dir_all(dir).unwrap();
    let mut table = "filename,odd,two,three\n".to_owned();
    for number in 0..6 {
        let folder = match task {
            "hierarchical" => ["even/zero", "odd/one", "even/two"][number % 3],
            "multiclass" => ["even", "odd"][number % 2],
            _ => "",
        };
        let file = format!("{number}.png");
        std::fs::create_dir_all(dir.join(folder)).unwrap();
        std::fs::copy(images.join(&file), dir.join(folder).join(&file)).unwrap();
        let three = if number == 5 { "".to_owned() } else { u8::from(number % 3 == 0).to_string() };
        table.push_str(&format!("{file},{},{},{three}\n", number % 2, u8::from(number % 3 == 2)));
    }
    if task == "multilabel" {
        std::fs::write(dir.join("labels.csv"), table).unwrap();
    }
}

/// Planned, trained, recorded and replayed, killed and resumed, evaluated on both devices, used, merged.
fn tasks() {
    for (task, more) in [
        ("multiclass", "--class-weights balanced --label-smoothing 0.1"),
        ("multilabel", "--loss asymmetric --tune-thresholds"),
        ("multilabel", ""),
        ("hierarchical", "--label-smoothing 0.1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (data, out, cut, merged) = (dir.join("data"), dir.join("run"), dir.join("cut"), dir.join("merged"));
        laid_out(&data, task);
        let data = data.display();
        for strategy in ["full", "freeze", "lora", "dora"] {
            let what = format!("{task} {strategy} {more}");
            let flags =
                format!("--data {data} --val-data {data} --device cuda --input-size 56 --batch-size 4 --epochs 20");
            let flags = format!("{flags} --strategy {strategy} {more}");
            run(&format!("train {flags} --out {}", out.display()));
            let lines = lines(&out);
            let end = lines.last().unwrap();
            let (planned, peak) =
                (end["planned_device_bytes"].as_u64().unwrap(), end["peak_device_bytes"].as_u64().unwrap());
            assert!(planned.abs_diff(peak) * 100 <= planned, "{what}: planned {planned}, peak {peak}");
            let losses: Vec<f64> =
                lines.iter().filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect();
            let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
            assert!(mean(&losses[losses.len() - 8..]) < mean(&losses[..8]), "{what}: nothing was learnt: {losses:?}");

            let mut child = command(&format!("train {flags} --out {}", cut.display()))
                .env("PEFTK_SAVE_EVERY_S", "0")
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let begun = std::time::Instant::now();
            while !cut.join("last").exists() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(cut.join("last").exists(), "{what}: nothing was saved in 20 s");
            child.kill().unwrap();
            child.wait().unwrap();
            run(&format!("train --out {} --resume", cut.display()));
            let result = if matches!(strategy, "lora" | "dora") {
                "adapter/adapter_model.safetensors"
            } else {
                "model.safetensors"
            };
            for file in [result, "labels.json"] {
                let [a, b] = [&out, &cut].map(|run| std::fs::read(run.join(file)).unwrap());
                assert!(a == b, "{what}: {file} differs between a run in one piece and one that was killed");
            }

            let eval = |device: &str| -> Value {
                let line = format!("eval --model {} --data {data} --device {device} --json", out.display());
                serde_json::from_slice(&run(&line).stdout).unwrap()
            };
            let [gpu, cpu] = ["cuda", "cpu"].map(eval);
            let [of_gpu, of_cpu] = [&gpu, &cpu].map(|report| report["loss"].as_f64().unwrap());
            assert!((of_gpu - of_cpu).abs() < 0.05 * of_cpu.max(0.2), "{what}: {gpu} on the GPU, {cpu} on the CPU");
            run(&format!("merge --model {} --out {}", out.display(), merged.display()));
            let labels = |model: String| -> Vec<Value> {
                let output = run(&format!("predict {model} --device cuda --precision f32 --json {data}"));
                let text = String::from_utf8(output.stdout).unwrap();
                text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].clone()).collect()
            };
            let own = labels(format!("--model {}", out.display()));
            assert_eq!(own.len(), 6, "{what}");
            assert!(own.iter().all(|label| label.is_string() == (task == "multiclass")), "{what}: {own:?}");
            assert_eq!(own, labels(format!("--backbone {} --input-size 56", merged.display())), "{what}: merged");
            for folder in [&out, &cut, &merged] {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    }
}

fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    for (flags, word) in
        [("--device cuda --strategy dora --rank 300", "--rank 300"), ("--device cuda:77", "--device cuda:77")]
    {
        let output = command(&format!("train {flags} --epochs 1 --out {out}")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!((output.status.code(), errors.len()), (Some(2), 1), "{flags}: {text}");
        assert!(errors[0].contains(word), "{flags}: {text}");
    }
}
