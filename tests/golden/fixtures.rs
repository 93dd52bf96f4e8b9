//! Pieces against torch and peft (tests/fixtures/README.md): position resizing, DoRA with dropout and through the norm, AdamW, losses, inits.

use std::path::Path;

use peftk::adapter::{self, AdapterConfig, AdapterFile, AdapterModule};
use peftk::autograd::{
    AdapterDims, AdapterInput, Array, Asymmetric, Backend, DoraInput, Grads, ParamId, Params, Sums, Tape, Tensor,
    TreeLoss,
};
use peftk::config::{AdapterInit, AdapterSettings};
use peftk::io::state::{HostTensor, StateDict};
use peftk::reference::Reference;
use peftk::train::optimizer::{Hyper, Optimizer};
use peftk::vit::positions::resampling_matrix;
use peftk::vit::{Family, VitConfig};
use safetensors::SafeTensors;

use crate::{cpu, error, tensor};

type F64 = Reference<f64>;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn positions_resize_as_each_family_does() {
    let bytes = read("positions.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rules = [
        ("meta", Family::Meta, 0),
        ("transformers", Family::Transformers, 0),
        ("antialias", Family::Transformers, 4),
        ("antialias", Family::Meta, 4),
        ("antialias", Family::Timm, 0),
        ("antialias", Family::Timm, 4),
    ];
    for (rule, family, registers) in rules {
        for (from, to) in [(8, 1), (8, 4), (8, 5), (8, 11), (37, 16)] {
            let config = VitConfig { family, registers, image_size: from * 14, ..VitConfig::named("micro").unwrap() };
            let matrix = resampling_matrix(&config, to).unwrap();
            let (input, _) = tensor(&file, &format!("in_{from}"));
            let (expected, shape) = tensor(&file, &format!("{rule}_{from}to{to}x{to}"));
            let width = shape[1];
            let got: Vec<f32> = (0..to * to * width)
                .map(|at| {
                    let row = &matrix[at / width * from * from..][..from * from];
                    row.iter().enumerate().map(|(j, &w)| f64::from(w) * input[j * width + at % width]).sum::<f64>()
                        as f32
                })
                .collect();
            let wrong = error(&got, &expected, 0.0);
            assert!(wrong < 1e-6, "{rule} {family:?} {registers} registers, {from} to {to}: {wrong:.2e}");
        }
    }
}

/// A linear under one DoRA adapter, its inputs by name.
struct Dora<'f> {
    file: &'f SafeTensors<'f>,
    params: Params<F64>,
}

impl Dora<'_> {
    fn add(&mut self, name: &str, values: &[f64], shape: &[usize]) -> ParamId {
        let id = self.params.add(name, &vec![0.0; values.len()], shape, true).unwrap();
        let backend = F64::new();
        self.params.get_mut(id).value = Array::new(&backend, backend.upload_f64(values), shape).unwrap();
        id
    }

    fn input(&mut self, name: &str) -> ParamId {
        let (values, shape) = tensor(self.file, name);
        self.add(name, &values, &shape)
    }
}

#[test]
fn dora_in_every_mode() {
    let bytes = read("dora_extra.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for mode in ["detached", "train", "normgrad"] {
        let mut case = Dora { file: &file, params: Params::new(F64::new()) };
        let [x, w, b, lora_a, lora_b, m] = ["x", "W", "b", "A", "B", "m"].map(|name| case.input(name));
        let (mask, shape) = tensor(&file, "mask");
        let masked: Vec<f64> = mask.iter().zip(&tensor(&file, "x").0).map(|(mask, x)| mask * x).collect();
        let dropped = case.add("mask x", &masked, &shape);
        let dims = AdapterDims { first_row: 0, rows: 6, rank: 2, scale: tensor(&file, "scale").0[0] };
        let tape = Tape::new(&case.params);
        let [xt, wt, at, bt] = [x, w, lora_a, lora_b].map(|id| tape.param(id));
        let of_norm = |tensor: &Tensor<F64>| if mode == "normgrad" { tensor.clone() } else { tensor.detach() };
        let (weight, magnitude) = (wt.detach(), tape.param(m));
        let input = DoraInput { dims, weight, a: of_norm(&at), b: of_norm(&bt), magnitude };
        let gain = tape.dora_gains(&[input]).unwrap().swap_remove(0);
        let adapter = AdapterInput {
            dims,
            a: at,
            b: bt,
            gain: Some(gain),
            dropped: (mode == "train").then(|| tape.param(dropped)),
        };
        let y = tape.linear(&xt, &wt, Some(&tape.param(b)), &[adapter]).unwrap();
        let close = |name: &str, got: &[f64]| {
            let expected = tensor(&file, &format!("{mode}.{name}")).0;
            let scale = crate::largest(&expected);
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-12 * scale, "{mode}.{name}: {a} for {b}");
            }
        };
        close("y", y.array().buffer());

        let grads = backward_with(&case.params, tape, &y, &tensor(&file, "dy").0);
        let grad = |id: ParamId| grads.get(id).unwrap().buffer().clone();
        let mut dx = grad(x);
        if mode == "train" {
            for ((dx, d), mask) in dx.iter_mut().zip(grad(dropped)).zip(&mask) {
                *dx += mask * d;
            }
        }
        close("dx", &dx);
        close("dA", &grad(lora_a));
        close("dB", &grad(lora_b));
        close("dm", &grad(m));
        close("db", &grad(b));
        if mode != "normgrad" {
            close("dW", &grad(w));
        }
    }
}

/// The gradients of sum(y * dy).
fn backward_with(params: &Params<F64>, tape: Tape<'_, F64>, y: &Tensor<F64>, dy: &[f64]) -> Grads<F64> {
    let backend = F64::new();
    let dy = Array::new(&backend, backend.upload_f64(dy), y.shape()).unwrap();
    let mut grads = Grads::new(params);
    tape.backward_with(y, dy, &mut grads).unwrap();
    grads
}

#[test]
fn adamw_and_clipping() {
    let bytes = read("optimizer.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let settings = tensor(&file, "adamw.settings").0;
    let [lr, beta1, beta2, eps, weight_decay] = settings[..] else { panic!("{settings:?}") };
    let (start, shape) = tensor(&file, "adamw.start");
    let (steps, _) = tensor(&file, "adamw.grads");
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let mut params = Params::new(cpu());
    let id = params.add("w", &narrow(&start), &shape, true).unwrap();
    let hyper = Hyper { beta1, beta2, eps, ..Hyper::new(weight_decay) };
    let mut optimizer = Optimizer::new(&params, hyper).unwrap();
    let after = tensor(&file, "adamw.after_f64").0;
    for (grad, expected) in steps.chunks_exact(start.len()).zip(after.chunks_exact(start.len())) {
        let mut grads = Grads::new(&params);
        grads.add(id, &narrow(grad), &shape).unwrap();
        optimizer.step(&mut params, &mut grads, lr).unwrap();
        let wrong = error(&params.download(id).unwrap(), expected, 0.0);
        assert!(wrong < 2e-7, "{wrong:.2e}");
    }
}

#[test]
fn losses_and_their_gradients() {
    let bytes = read("losses.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (logits, shape) = tensor(&file, "logits");
    let labels: Vec<f32> = tensor(&file, "labels").0.iter().map(|&x| x as f32).collect();
    let hot: Vec<f32> = tensor(&file, "hot").0.iter().map(|&x| x as f32).collect();
    let rows = labels.len() as f64;
    let narrow: Vec<f32> = logits.iter().map(|&x| x as f32).collect();
    let backend = cpu();
    let buffer = backend.upload(&narrow).unwrap();
    let (labels, targets) = (backend.upload(&labels).unwrap(), backend.upload(&hot).unwrap());
    for name in ["ce", "ce_smooth", "bce"] {
        let (loss, grad) = match name {
            "ce" => backend.cross_entropy(shape[1], &buffer, &labels, None, 0.0, rows, Sums::fresh()).unwrap(),
            "ce_smooth" => backend.cross_entropy(shape[1], &buffer, &labels, None, 0.1, rows, Sums::fresh()).unwrap(),
            _ => backend.binary_cross_entropy(&buffer, &targets, hot.len() as f64, Sums::fresh()).unwrap(),
        };
        let wrong = error(&backend.download(&loss).unwrap(), &tensor(&file, &format!("{name}.loss")).0, 0.0);
        assert!(wrong < 1e-6, "{name}: loss {wrong:.2e}");
        let wrong = error(&backend.download(&grad).unwrap(), &tensor(&file, &format!("{name}.grad")).0, 0.0);
        assert!(wrong < 1e-6, "{name}: gradient {wrong:.2e}");
    }
}

/// Softmax heads and sigmoids, by torch.
#[test]
fn the_loss_of_a_tree_and_its_gradient() {
    let bytes = read("tree_loss.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (logits, shape) = tensor(&file, "logits");
    let narrow = |name: &str| tensor(&file, name).0.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let backend = cpu();
    let [logits, targets, begins] = [logits.iter().map(|&x| x as f32).collect(), narrow("targets"), narrow("begins")]
        .map(|values: Vec<f32>| backend.upload(&values).unwrap());
    let single = Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 };
    for (name, smoothing) in [("tree", 0.0), ("tree_smooth", 0.1)] {
        let loss = TreeLoss { cols: shape[1], heads: 3, smoothing, single };
        let (loss, grad) = backend.tree_loss(loss, &logits, &targets, &begins, shape[0] as f64, Sums::fresh()).unwrap();
        let wrong = error(&backend.download(&loss).unwrap(), &tensor(&file, &format!("{name}.loss")).0, 0.0);
        assert!(wrong < 1e-6, "{name}: loss {wrong:.2e}");
        let wrong = error(&backend.download(&grad).unwrap(), &tensor(&file, &format!("{name}.grad")).0, 0.0);
        assert!(wrong < 1e-6, "{name}: gradient {wrong:.2e}");
    }
}

/// PiSSA starts where peft starts and leaves the same base; written as a plain adapter it is peft's conversion.
#[test]
fn pissa() {
    let bytes = read("adapter_inits.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (w, _) = tensor(&file, "W");
    let (rows, cols, rank) = (10, 8, 4);
    let narrow: Vec<f32> = w.iter().map(|&x| x as f32).collect();
    for (case, rslora) in [("pissa", false), ("pissa_rslora", true)] {
        let scale = 8.0 / if rslora { 2.0 } else { 4.0 };
        let (a, b) = adapter::principal(&narrow, rows, cols, rank, scale).unwrap();
        let product = |a: &[f64], b: &[f64], rank: usize| -> Vec<f64> {
            (0..rows * cols)
                .map(|at| (0..rank).map(|i| b[at / cols * rank + i] * a[i * cols + at % cols]).sum::<f64>())
                .collect()
        };
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let [ours, theirs] = [
            product(&wide(&a), &wide(&b), rank),
            product(&tensor(&file, &format!("{case}.A")).0, &tensor(&file, &format!("{case}.B")).0, rank),
        ];
        let ours: Vec<f32> = ours.iter().map(|&x| x as f32).collect();
        assert!(error(&ours, &theirs, 0.0) < 1e-5, "{case}");
        let residual: Vec<f32> =
            narrow.iter().zip(&ours).map(|(w, p)| (f64::from(*w) - scale * f64::from(*p)) as f32).collect();
        assert!(error(&residual, &tensor(&file, &format!("{case}.W_residual")).0, 0.0) < 1e-5, "{case}");

        let module = |a: &str, b: &str| {
            let host = |name: &str| {
                let (values, shape) = tensor(&file, &format!("{case}.{name}"));
                HostTensor { shape, data: values.iter().map(|&x| x as f32).collect() }
            };
            AdapterModule {
                layer: 0,
                linear: peftk::vit::names::Linear::Output,
                a: host(a),
                b: host(b),
                magnitude: None,
            }
        };
        let config = AdapterConfig { rank, alpha: 8.0, rslora, init: AdapterInit::Pissa, ..AdapterConfig::default() };
        let file_of = |a, b| AdapterFile { config: config.clone(), modules: vec![module(a, b)], classifier: None };
        let plain = adapter::as_plain(&file_of("A_trained", "B_trained"), &file_of("A", "B")).unwrap();
        assert_eq!(plain.config.rank as f64, tensor(&file, &format!("{case}.r_converted")).0[0]);
        assert!((plain.config.alpha - tensor(&file, &format!("{case}.alpha_converted")).0[0]).abs() < 1e-6);
        assert_eq!(error(&plain.modules[0].a.data, &tensor(&file, &format!("{case}.A_converted")).0, 0.0), 0.0);
        assert_eq!(error(&plain.modules[0].b.data, &tensor(&file, &format!("{case}.B_converted")).0, 0.0), 0.0);
    }
}

/// Every start leaves what the backbone computes unchanged.
#[test]
fn every_init_is_the_identity_at_step_0() {
    let config = VitConfig::named("micro").unwrap();
    let original = peftk::io::random(&config, 5);
    for init in [AdapterInit::Default, AdapterInit::Gaussian, AdapterInit::Pissa, AdapterInit::Orthogonal] {
        for dora in [false, true] {
            let settings = AdapterSettings {
                targets: vec!["all-linear".into()],
                rank: 4,
                alpha: 8.0,
                rslora: false,
                dropout: 0.0,
                dora_norm_grad: false,
                init,
                rank_pattern: vec![],
                alpha_pattern: vec![],
                layers: vec![],
            };
            let mut state: StateDict = original.clone();
            let file = adapter::init(&settings, dora, &config, &mut state, 3).unwrap();
            assert_eq!(file.modules.len(), 5 * 6);
            assert!(file.modules.iter().all(|m| m.a.data.iter().any(|&x| x != 0.0)));
            let with = logits(&config, state, Some(&file));
            let without = logits(&config, original.clone(), None);
            let wide: Vec<f64> = without.iter().map(|&x| f64::from(x)).collect();
            let wrong = error(&with, &wide, 0.0);
            assert!(wrong < 1e-5, "{init:?}, dora {dora}: {wrong:.2e}");
        }
    }
}

fn logits(config: &VitConfig, state: StateDict, adapter: Option<&AdapterFile>) -> Vec<f32> {
    use peftk::io::state::Classifier;
    use peftk::vit::build::{BuildOptions, build};
    let values: Vec<f32> = (0..3 * 2 * config.hidden).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
    let head = Classifier {
        weight: HostTensor { shape: vec![3, 2 * config.hidden], data: values },
        bias: HostTensor { shape: vec![3], data: vec![0.1, 0.2, 0.3] },
    };
    let options = BuildOptions {
        train_backbone: false,
        train: true,
        adapter,
        dora_norm_grad: false,
        pool: peftk::config::Pool::ClsMean,
        input_size: 56,
    };
    let mut params = Params::new(cpu());
    let vit = build(&mut params, config, state, &head, &options).unwrap();
    let images: Vec<u8> = (0..2 * 56 * 56 * 3).map(|i| (i * 31 % 251) as u8).collect();
    let tape = Tape::inference(&params);
    vit.logits(&tape, &images, 2, peftk::vit::Mode::default()).unwrap().array().download(params.backend()).unwrap()
}
