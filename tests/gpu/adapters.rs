//! Adapters that are packed once for all passes of a step: the bits of those that every pass packs for itself, and not a moment longer.

use peftk::autograd::{Array, Backend, Grads, Params, Tape};
use peftk::config::{Precision, Recompute};
use peftk::cuda::Cuda;
use peftk::vit::{Mode, Vit};

use crate::case::Case;
use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "adapters::packed_once_they_change_no_bit", needs: Needs::Gpu, run: same_bits },
    Test { name: "adapters::packed_ones_stand_until_they_are_released", needs: Needs::Gpu, run: released },
];

/// Logits and all gradients of one pass. `prepared` takes the packed adapters, where they are to be packed before.
fn pass(
    case: &Case,
    (vit, params): (&Vit, &Params<Cuda>),
    recompute: Recompute,
    prepared: Option<&mut Option<<Cuda as Backend>::Prepared>>,
) -> Vec<Vec<f32>> {
    let (backend, images) = (params.backend(), case.batch.indices.len());
    let derived = vit.derive(&Tape::new(params)).unwrap();
    if let Some(prepared) = prepared {
        let place = backend.prepare_adapters(&vit.all_adapters(params, &derived), prepared).unwrap();
        assert_ne!(place, 0, "packed somewhere");
    }
    let mode = Mode { images, recompute, ..Mode::default() };
    let tape = Tape::new(params).over_images(images).with_derived(&derived);
    let logits = vit.logits(&tape, &case.batch.images, images, mode).unwrap();
    let mut all = vec![logits.array().download(backend).unwrap()];
    let dlogits: Vec<f32> = (0..all[0].len()).map(|i| (i as f32 * 0.7).sin()).collect();
    let dlogits = Array::upload(backend, &dlogits, logits.shape()).unwrap();
    let mut grads = Grads::new(params);
    tape.backward_with(&logits, dlogits, &mut grads).unwrap();
    all.extend(grads.iter().map(|(_, grad)| grad.download(backend).unwrap()));
    backend.release_adapters();
    all
}

fn same_bits() {
    for name in ["lora_qv", "lora_all", "dora_qv", "dora_all", "patterns", "swiglu"] {
        let case = Case::read(name);
        on_every_arch(|device| {
            for precision in [Precision::F32, Precision::Bf16] {
                let (vit, params) = case.model(Cuda::new(device, precision));
                let mut prepared = None;
                for recompute in [Recompute::NOTHING, Recompute::HIDDEN, Recompute::BLOCKS] {
                    let alone = pass(&case, (&vit, &params), recompute, None);
                    let packed = pass(&case, (&vit, &params), recompute, Some(&mut prepared));
                    assert!(alone.len() > 2 && alone == packed, "{name} {} {precision:?} {recompute:?}", device.arch());
                }
            }
        });
    }
}

fn released() {
    let case = Case::read("lora_all");
    on_every_arch(|device| {
        let (vit, mut params) = case.model(Cuda::new(device, Precision::Bf16));
        let backend = params.backend().clone();
        let (_, adapter) = vit.adapters().next().unwrap();
        let (b, mut blocks) = (adapter.b, None);
        let logits = |params: &Params<Cuda>| case.logits(&vit, params);
        let before = logits(&params);

        let derived = vit.derive(&Tape::new(&params)).unwrap();
        let place = backend.prepare_adapters(&vit.all_adapters(&params, &derived), &mut blocks).unwrap();
        let values = params.download(b).unwrap();
        let changed: Vec<f32> = values.iter().map(|value| value + 0.5).collect();
        params.set(b, &changed).unwrap();
        assert_eq!(logits(&params), before, "what was packed is what products read");
        backend.release_adapters();
        let after = logits(&params);
        assert_ne!(after, before, "released, the values count");

        // The next step finds the same blocks, with the new values.
        let again = backend.prepare_adapters(&vit.all_adapters(&params, &derived), &mut blocks).unwrap();
        assert_eq!(again, place);
        assert_eq!(logits(&params), after);
        // Whoever drops them drops what was ready.
        params.set(b, &values).unwrap();
        blocks.take();
        assert_eq!(logits(&params), before);
    });
}
