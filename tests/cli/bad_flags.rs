//! Wrong flags: one line that names the flag, exit code 2, nothing written.

use super::refusal;

#[test]
fn wrong_flags_end_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("", "no command"),
        ("fly", "'fly'"),
        ("train --lrr 0.1", "--lrr"),
        ("train --rank 0", "--rank"),
        ("train --rank -1", "--rank"),
        ("train --rank x", "--rank"),
        ("train --alpha -2", "--alpha"),
        ("train --lr NaN", "--lr"),
        ("train --lr -0.1", "--lr"),
        ("train --lr inf", "--lr"),
        ("train --lr 0", "--lr"),
        ("train --input-size 225", "--input-size"),
        ("train --input-size 0", "--input-size"),
        ("train --epochs 0", "--epochs"),
        ("train --batch-size 0", "--batch-size"),
        ("train --batch-size some", "--batch-size"),
        ("train --memory-budget much", "--memory-budget"),
        ("train --cache much", "--cache"),
        ("train --cache 4", "--cache"),
        ("train --cache 4GiB,1GiB,", "--cache"),
        ("train --cache 4GiB,none,d", "--cache"),
        ("train --cache 1MiB,1MiB,d --device cpu --quiet", "--cache: no file can be made in "),
        ("train --batch-size auto --device cpu --quiet", "--batch-size auto"),
        ("train --micro-batch 0", "--micro-batch"),
        ("train --lora-dropout 1", "--lora-dropout"),
        ("train --lora-dropout -0.1", "--lora-dropout"),
        ("train --label-smoothing 1", "--label-smoothing"),
        ("train --val-fraction 1", "--val-fraction"),
        ("train --val-fraction 0.1 --val-data v", "--val-data"),
        ("train --schedule plateau --val-fraction 0", "--schedule"),
        ("train --schedule linear", "--schedule"),
        ("train --strategy qlora", "--strategy"),
        ("train --strategy full --rank 8", "--rank"),
        ("train --strategy freeze --targets q", "--targets"),
        ("train --strategy freeze --init-adapter a", "--init-adapter"),
        ("train --strategy lora --dora-norm-grad", "--dora-norm-grad"),
        ("train --init pissa --init-adapter a", "--init"),
        ("train --targets q,classifier", "--targets"),
        ("train --targets q,all-linear", "--targets"),
        ("train --rank-pattern q=0", "--rank-pattern"),
        ("train --rank-pattern q", "--rank-pattern"),
        ("train --rank-pattern (=1", "--rank-pattern"),
        ("train --layers 0,x", "--layers"),
        ("train --task tree", "--task"),
        ("train --format mnist", "--format"),
        ("train --format coco", "--format: it says how --data is laid out, and none is given; add --data DIR"),
        ("train --decay biases", "--decay"),
        ("train --seed -1", "--seed"),
        ("train --seed 18446744073709551615", "--seed"),
        ("train --shots 0", "--shots"),
        ("train --balanced --no-shuffle", "--balanced"),
        // No machine has so many.
        ("train --device cuda:4096", "--device"),
        ("train --device tpu", "--device"),
        ("train --device cpu --precision bf16", "--precision"),
        ("train --precision f16", "--precision"),
        ("train --memory tiny", "--memory"),
        ("train --config missing.toml", "missing.toml"),
        ("train --resume", "--out"),
        ("train --resume --out nothing", "nothing"),
        ("plan --rank 0", "--rank"),
        ("plan --device tpu", "--device"),
        ("eval --data d", "--model"),
        ("eval --model m", "--data"),
        ("eval --model m --data d --cache 4GB,5", "--cache"),
        ("eval --model nothing --data d", "--model nothing"),
        ("eval --model m --data d --device tpu", "--device"),
        ("predict --model m", "IMAGE|DIR"),
        ("predict a.jpg", "--model"),
        ("predict --adapter a a.jpg", "--backbone"),
        ("predict --model m --backbone b a.jpg", "--model"),
        ("predict --model nothing a.jpg", "--model nothing"),
        ("predict --backbone b --input-size 15 a.jpg", "--input-size"),
        ("predict --backbone b --resize squeeze a.jpg", "--resize"),
        ("explain --model m", "IMAGE|DIR"),
        ("explain a.jpg", "--model"),
        ("explain --model m --backbone b a.jpg", "--model"),
        ("explain --model nothing a.jpg", "--model nothing"),
        ("explain --backbone b --input-size 15 a.jpg", "--input-size"),
        ("explain --backbone b --method lime a.jpg", "--method"),
        ("explain --backbone b --resize squeeze a.jpg", "--resize"),
        ("merge --backbone b --out o", "--adapter"),
        ("merge --model m", "--out"),
        ("export", "'export'"),
        ("bench --strategy lora,qlora", "--strategy"),
        ("bench --strategy full --rank 8", "--rank"),
        ("bench --strategy full,freeze --targets q", "--targets"),
        ("bench --batch-size 0", "--batch-size"),
        ("bench --batch-size 4,x", "--batch-size"),
        ("bench --batch-size -1", "--batch-size"),
        ("bench --memory fast,tiny", "--memory"),
        ("bench --micro-batch 0", "--micro-batch"),
        ("bench --targets q,classifier", "--targets"),
        ("bench --rank 0", "--rank"),
        ("bench --size tiny", "--size"),
        ("bench --classes 0", "--classes"),
        ("bench --input-size 15", "--input-size"),
        ("bench --steps 0", "--steps"),
        ("bench --warmup -1", "--warmup"),
        ("bench --device tpu", "--device"),
        ("bench --device cuda:4096", "--device"),
        ("bench --device cpu --precision bf16", "--precision"),
        ("bench --precision f16", "--precision"),
        ("bench --data d", "--data"),
    ];
    for (line, named) in cases {
        let text = refusal(dir.path(), line);
        assert!(text.contains(named), "peftk {line} does not name {named}\n{text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refused call wrote something");
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("lr = 0.1\nrnak = 4\n", "line 2"),
        ("lr = \n", "line 1"),
        ("[adapter]\nranks = 4\n", "line 2"),
        ("strategy = \"qlora\"\n", "line 1"),
        ("epochs = -1\n", "line 1"),
        ("[adapter]\nrank = 0\n", "--rank"),
        ("lr = nan\n", "--lr"),
    ];
    for (text, named) in cases {
        std::fs::write(dir.path().join("c.toml"), text).unwrap();
        let error = refusal(dir.path(), "train --config c.toml");
        assert!(error.contains(named), "{text}{error}");
    }
}

#[test]
fn an_output_that_is_taken_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("precious"), "1").unwrap();
    assert!(refusal(dir.path(), "train --out out").contains("--out out"));
    assert!(refusal(dir.path(), "train --out out/precious").contains("found a file"));
    assert!(refusal(dir.path(), "merge --backbone b --adapter a --out out").contains("--out out"));
    std::fs::write(out.join("config.toml"), "").unwrap();
    assert!(refusal(dir.path(), "train --out out").contains("--resume"));
    assert_eq!(std::fs::read(out.join("precious")).unwrap(), b"1");
}
