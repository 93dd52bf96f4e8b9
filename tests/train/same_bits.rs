//! What decides a run's bits, and what must not.

use crate::{assert_same_bits, command, done, losses, pictures};

const FLAGS: &str = "train --data data --backbone random:micro --input-size 28 --epochs 2 --batch-size 8 --quiet";

#[test]
fn a_seed_and_nothing_else_decides_the_bits() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 10, 3);
    let flags = format!("{FLAGS} --targets all-linear --lora-dropout 0.1 --grad-clip 1");
    for threads in ["1", "2"] {
        let output = command(dir, &format!("{flags} --out on{threads}")).env("RAYON_NUM_THREADS", threads).output();
        assert!(output.unwrap().status.success());
    }
    done(dir, &format!("{flags} --out again"));
    done(dir, &format!("{flags} --out other --seed 1"));
    let read = |run: &str, file: &str| std::fs::read(dir.join(run).join(file)).unwrap();
    for file in ["adapter/adapter_model.safetensors", "last/state.safetensors"] {
        assert!(read("on1", file) == read("on2", file), "{file}: one thread and two");
        assert!(read("again", file) == read("on2", file), "{file}: the same again");
        assert!(read("other", file) != read("on2", file), "{file}: another seed");
    }
    assert_eq!(losses(&dir.join("on1")), losses(&dir.join("on2")));
    assert_ne!(losses(&dir.join("on1")), losses(&dir.join("other")));
    // The same down to the log, where threads are the same too.
    done(dir, &format!("{flags} --out once-more"));
    assert_same_bits(&dir.join("again"), &dir.join("once-more"));
}

#[test]
fn less_memory_gives_the_same_losses() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 9, 4);
    for strategy in ["dora --targets all-linear", "full --lr 1e-4"] {
        let all: Vec<Vec<f64>> = [
            "--memory fast",
            "--micro-batch 3",
            "--memory lean",
            "--memory lean --micro-batch 1",
            "--memory-budget 24MiB",
        ]
        .iter()
        .enumerate()
        .map(|(number, memory)| {
            let run = format!("{}{number}", &strategy[..4]);
            done(dir, &format!("{FLAGS} --strategy {strategy} {memory} --out {run}"));
            losses(&dir.join(run))
        })
        .collect();
        for other in &all[1..] {
            assert_eq!(all[0].len(), other.len());
            for (a, b) in all[0].iter().zip(other) {
                assert!((a - b).abs() <= 1e-5 * a.abs(), "{strategy}: loss {b} for {a}");
            }
        }
    }
}
