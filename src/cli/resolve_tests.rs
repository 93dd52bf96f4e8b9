//! Tests of the settings' defaults, precedence and refusals.

use super::*;

fn flags(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn toml(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

fn resolved(change: impl FnOnce(&mut Settings)) -> Result<TrainConfig> {
    resolve(&flags(change), &Settings::default())
}

#[test]
fn no_flags_are_the_default_run() {
    assert_eq!(resolved(|_| ()).unwrap(), TrainConfig::default());
}

#[test]
fn defaults_follow_strategy_data_and_backbone() {
    let config = resolved(|s| {
        s.data = Some("d".into());
        s.backbone = Some("dinov2-small".into());
        s.strategy = Some(Strategy::Full);
    })
    .unwrap();
    assert_eq!((config.batch_size, config.input_size, config.lr), (64, 224, 3e-5));
    assert_eq!(config.adapter, None);
    let config = resolved(|s| s.adapter.rank = Some(4)).unwrap();
    assert_eq!(config.adapter.unwrap().alpha, 4.0);
    assert_eq!(resolved(|s| s.backbone = Some("random:micro-reg".into())).unwrap().input_size, 56);
    assert_eq!(resolved(|s| s.backbone = Some("embedded".into())).unwrap().input_size, 56);
    assert_eq!(resolved(|s| s.backbone = Some("random:small".into())).unwrap().input_size, 224);
}

#[test]
fn a_written_configuration_reads_back_as_itself() {
    let config = resolved(|s| {
        s.data = Some("some dir".into());
        s.task = Some(TaskWord::Multilabel);
        s.lr = Some(0.1 + 0.2);
        s.seed = Some(i64::MAX as u64);
        s.patience = Some(5);
        s.micro_batch = Some(16);
        s.recompute = Some(Recompute::BLOCKS);
        s.pool = Some(Pool::Cls);
        s.cache = Some("none,3GiB,/scratch".parse().unwrap());
        s.adapter.rank_pattern = Some(vec![("layer.0.*q_proj".into(), 4)]);
        s.adapter.alpha_pattern = Some(vec![("v_proj".into(), 2.5)]);
        s.adapter.layers = Some(vec![0, 2]);
    })
    .unwrap();
    let text = config.to_toml().unwrap();
    let mut again = resolve(&Settings::default(), &toml(&text)).unwrap();
    assert_ne!(again.given, config.given, "what a file says counts as asked for");
    again.given = config.given.clone();
    assert_eq!(again, config);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let read = TrainConfig::read_toml(&path).unwrap();
    assert_eq!(read, TrainConfig { out: dir.path().to_owned(), given: Given::default(), ..config });
}

#[test]
fn flags_go_before_the_file() {
    let file = toml("lr = 0.5\nepochs = 3\n[adapter]\nrank = 2\ntargets = [\"k\"]\n");
    let config = resolve(&flags(|s| s.lr = Some(0.25)), &file).unwrap();
    assert_eq!((config.lr, config.epochs), (0.25, 3));
    assert_eq!(config.given.rank, Some(2));
    assert_eq!(config.given.alpha, None);
    let adapter = config.adapter.unwrap();
    assert_eq!((adapter.rank, adapter.targets), (2, vec!["k_proj".to_owned()]));
    // Another strategy by flag leaves the file's adapter aside; one in the file contradicts it.
    assert_eq!(resolve(&flags(|s| s.strategy = Some(Strategy::Full)), &file).unwrap().adapter, None);
    assert!(resolve(&Settings::default(), &toml("strategy = \"full\"\n[adapter]\nrank = 2\n")).is_err());
    assert!(toml::from_str::<Settings>("rnak = 2").is_err());
}

#[test]
fn memory_is_planned_unless_it_is_given() {
    let pair = |flags: Settings, file: Settings| {
        let config = resolve(&flags, &file).unwrap();
        (config.memory, config.micro_batch, config.recompute)
    };
    let with = |memory| flags(|s| s.memory = Some(memory));
    let none = Settings::default;
    use crate::config::Memory::*;
    assert_eq!(pair(none(), none()), (Fast, None, None));
    assert_eq!(pair(with(Balanced), none()), (Balanced, None, None));
    assert_eq!(pair(with(Lean), none()), (Lean, None, None));
    assert_eq!(pair(flags(|s| s.micro_batch = Some(3)), none()), (Fast, Some(3), Some(Recompute::NOTHING)));
    let planned = || toml("micro_batch = 16\nrecompute = \"blocks\"");
    assert_eq!(pair(none(), planned()), (Fast, Some(16), Some(Recompute::BLOCKS)));
    assert_eq!(pair(with(Fast), planned()), (Fast, None, None));
    assert_eq!(pair(none(), toml("micro_batch = 8\ncheckpointing = true")), (Fast, Some(8), Some(Recompute::BLOCKS)));
    assert_eq!(pair(flags(|s| s.micro_batch = Some(2)), toml("memory = \"lean\"")), (Lean, Some(2), None));
}

#[test]
fn wrong_values_name_their_flag() {
    type Change = fn(&mut Settings);
    let cases: [(&str, Change); 27] = [
        ("--rank", |s| s.adapter.rank = Some(0)),
        ("--alpha", |s| s.adapter.alpha = Some(0.0)),
        ("--lora-dropout", |s| s.adapter.dropout = Some(1.0)),
        ("--lora-dropout", |s| s.adapter.dropout = Some(f64::NAN)),
        ("--targets", |s| s.adapter.targets = Some(vec!["x".into()])),
        ("--rank-pattern", |s| s.adapter.rank_pattern = Some(vec![("q".into(), 0)])),
        ("--rank-pattern", |s| s.adapter.rank_pattern = Some(vec![("(".into(), 1)])),
        ("--alpha-pattern", |s| s.adapter.alpha_pattern = Some(vec![("q".into(), f64::INFINITY)])),
        ("--lr", |s| s.lr = Some(f64::NAN)),
        ("--lr", |s| s.lr = Some(-1.0)),
        ("--lr", |s| s.lr = Some(f64::INFINITY)),
        ("--weight-decay", |s| s.weight_decay = Some(-0.1)),
        ("--grad-clip", |s| s.grad_clip = Some(0.0)),
        ("--label-smoothing", |s| s.label_smoothing = Some(1.0)),
        ("--val-fraction", |s| s.val_fraction = Some(1.0)),
        ("--input-size", |s| s.input_size = Some(0)),
        ("--input-size", |s| s.input_size = Some(225)),
        ("--input-size", |s| s.input_size = Some(14 << 40)),
        ("--epochs", |s| s.epochs = Some(0)),
        ("--batch-size", |s| s.batch_size = Some(BatchSize::Number(0))),
        ("--micro-batch", |s| s.micro_batch = Some(0)),
        ("--shots", |s| s.shots = Some(0)),
        ("--patience", |s| s.patience = Some(0)),
        ("--seed", |s| s.seed = Some(u64::MAX)),
        ("--precision", |s| (s.device, s.precision) = (Some(Device::Cpu), Some(Precision::Bf16))),
        ("--schedule", |s| (s.schedule, s.val_fraction) = (Some(ScheduleKind::Plateau), Some(0.0))),
        ("--balanced", |s| (s.balanced, s.no_shuffle) = (Some(true), Some(true))),
    ];
    for (flag, change) in cases {
        let error = resolved(change).unwrap_err();
        assert!(error.to_string().starts_with(flag), "{flag}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn adapter_flags_need_an_adapter() {
    type Change = fn(&mut AdapterFlags);
    let cases: [(&str, Change); 5] = [
        ("--rank", |a| a.rank = Some(8)),
        ("--targets", |a| a.targets = Some(vec!["q".into()])),
        ("--rslora", |a| a.rslora = Some(true)),
        ("--init", |a| a.init = Some(AdapterInit::Pissa)),
        ("--layers", |a| a.layers = Some(vec![0])),
    ];
    for (flag, change) in cases {
        for strategy in [Strategy::Full, Strategy::Freeze] {
            let error = resolved(|s| {
                s.strategy = Some(strategy);
                change(&mut s.adapter);
            });
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(flag) && error.contains(strategy.name()), "{error}");
        }
    }
    let init_adapter = |s: &mut Settings| s.init_adapter = Some("a".into());
    assert!(resolved(init_adapter).unwrap().adapter.is_some());
    assert!(
        resolved(|s| {
            init_adapter(s);
            s.strategy = Some(Strategy::Freeze);
        })
        .is_err()
    );
    let norm_grad = |strategy| {
        resolved(|s| {
            s.strategy = Some(strategy);
            s.adapter.dora_norm_grad = Some(true);
        })
    };
    assert!(norm_grad(Strategy::Dora).is_ok() && norm_grad(Strategy::Lora).is_err());
}
