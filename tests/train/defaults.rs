//! `peftk train` with nothing else.

use crate::{done, lines, peftk, text};

#[test]
fn no_flags_train_on_what_is_inside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let output = peftk(dir, "train --epochs 1");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    for part in ["strategy  ", "best validation accuracy  ", "peak memory  ", "try next", "runs/0001"] {
        assert!(stdout.contains(part), "{part} is missing in\n{stdout}");
    }
    for part in ["device: CPU", "data: embedded", "backbone: the embedded micro", "head: fresh", "epoch 1/1"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let run = dir.join("runs/0001");
    for name in ["config.toml", "labels.json", "curves.svg", "adapter/adapter_config.json", "last/state.safetensors"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    assert_eq!(lines(&run, "end").len(), 1);
    // The next run takes the next number, and a finished one is no harm to resume.
    done(dir, "train --epochs 1 --shots 2 --quiet");
    assert!(dir.join("runs/0002/config.toml").is_file());
    let before = std::fs::read(run.join("last/state.safetensors")).unwrap();
    done(dir, "train --resume --out runs/0001 --quiet");
    assert_eq!(std::fs::read(run.join("last/state.safetensors")).unwrap(), before);
    assert_eq!(lines(&run, "end").len(), 1);
}
