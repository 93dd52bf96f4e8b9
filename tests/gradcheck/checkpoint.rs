//! Recomputation, accumulation, scopes without gradients, and what is counted as kept.

use peftk::autograd::{AttentionDims, Grads, Tape, Tensor};

use crate::{Case, F64};

/// Two residual blocks of norm, linear and GELU, plain or recomputed.
#[test]
fn checkpoint_gives_the_same_gradients_and_keeps_less() {
    let mut case = Case::new();
    let (rows, cols) = (6, 4);
    let x = case.input(&[rows, cols]);
    let blocks: Vec<_> = (0..2)
        .map(|_| [case.input(&[cols]), case.input(&[cols]), case.input(&[3 * cols, cols]), case.input(&[cols])])
        .collect();
    let dims = AttentionDims { batch: 2, tokens: 3, heads: 2, head_dim: 2 };
    let block = move |t: &Tape<'_, F64>, x: &Tensor<F64>, ids: [peftk::autograd::ParamId; 4]| {
        let [nw, nb, w, g] = ids.map(|id| t.param(id));
        let h = t.linear(&t.layer_norm(x, &nw, &nb, 1e-6)?, &w, None, &[])?;
        t.layer_scale(x, &t.attention(dims, &h)?, &g)
    };
    case.check("checkpoint", |t| {
        let mut x = t.param(x);
        for &ids in &blocks {
            x = t.checkpoint(&x, move |t, x| block(t, x, ids))?;
        }
        Ok(x)
    });

    let run = |checkpointed: bool| {
        let tape = Tape::new(&case.params);
        let mut x = tape.param(x);
        for &ids in &blocks {
            x = if checkpointed {
                tape.checkpoint(&x, move |t, x| block(t, x, ids)).unwrap()
            } else {
                block(&tape, &x, ids).unwrap()
            };
        }
        let loss = tape.cross_entropy(&x, &[0, 1, 2, 3, 0, 1], 0.0, 6.0, None).unwrap();
        let (kept, by_op) = (tape.saved_bytes(), tape.saved_by_op());
        let mut grads = Grads::new(&case.params);
        tape.backward(&loss, &mut grads).unwrap();
        let grads: Vec<Vec<f64>> = case.ids.iter().map(|&id| grads.get(id).unwrap().buffer().clone()).collect();
        (kept, by_op, grads)
    };
    let (plain, by_op, expected) = run(false);
    let (recomputed, _, got) = run(true);
    assert_eq!(expected, got, "recomputing gives the same bits");
    // A block keeps x1, norm's y, qkv, the result and its statistics; recomputed, its input alone; the loss keeps dlogits.
    let number = 8;
    let block_bytes = (rows * cols * 3 + rows * 3 * cols + 2 * rows + rows * 2) * number;
    let kept_of_a_block: usize = by_op.iter().take_while(|(op, _)| *op != "layer_scale").map(|(_, bytes)| bytes).sum();
    assert!(kept_of_a_block <= block_bytes, "{by_op:?}");
    // x itself is a parameter: the first recomputed block keeps nothing of its own, the second its input.
    assert_eq!(recomputed, 2 * rows * cols * number);
    assert!(recomputed * 3 < plain, "{recomputed} of {plain}");
}

#[test]
fn a_segment_that_nothing_trains_is_not_kept() {
    let mut case = Case::new();
    let [x, w] = [case.constant(&[3, 4]), case.constant(&[4, 4])];
    let tape = Tape::new(&case.params);
    let y = tape.checkpoint(&tape.param(x), move |t, x| t.linear(x, &t.param(w), None, &[])).unwrap();
    assert!(!y.needs_grad());
    assert_eq!(tape.saved_by_op().len(), 0);
}

#[test]
fn gradients_add_up_over_backward_passes() {
    let mut case = Case::new();
    let [x, w] = [case.constant(&[4, 3]), case.input(&[5, 3])];
    let labels = [0, 4, 2, 1];
    let run = |grads: &mut Grads<F64>, times: usize, scale: f64| {
        for _ in 0..times {
            let tape = Tape::new(&case.params);
            let logits = tape.linear(&tape.param(x), &tape.param(w), None, &[]).unwrap();
            let loss = tape.cross_entropy(&logits, &labels, 0.0, scale, None).unwrap();
            tape.backward(&loss, grads).unwrap();
        }
    };
    let (mut once, mut twice) = (Grads::new(&case.params), Grads::new(&case.params));
    run(&mut once, 1, 4.0);
    run(&mut twice, 2, 8.0);
    for (a, b) in once.get(w).unwrap().buffer().iter().zip(twice.get(w).unwrap().buffer()) {
        assert!((a - b).abs() < 1e-15);
    }
    let norm = once.norm().unwrap();
    once.scale(0.5).unwrap();
    assert!((once.norm().unwrap() - norm / 2.0).abs() < 1e-12);
}

#[test]
fn no_grad_records_nothing() {
    let mut case = Case::new();
    let w = case.input(&[3, 3]);
    let tape = Tape::new(&case.params);
    let y = tape.no_grad(|t| t.gelu(&t.param(w)).unwrap());
    assert!(!y.needs_grad());
    assert!(tape.gelu(&tape.param(w)).unwrap().needs_grad());
    assert!(!tape.param(w).detach().needs_grad());
    let error = tape.backward(&y, &mut Grads::new(&case.params)).err().unwrap();
    assert!(error.to_string().contains("one number"), "{error}");
}

#[test]
fn an_operation_without_a_gradient_is_an_error() {
    let mut case = Case::new();
    let [w, c] = [case.input(&[3]), case.constant(&[3])];
    let tape = Tape::new(&case.params);
    let (w, c) = (tape.param(w), tape.param(c));
    let error = tape.record_without_gradient("round", &[&w], w.array().clone()).err().unwrap();
    assert!(error.to_string().contains("round has no gradient"), "{error}");
    assert!(tape.record_without_gradient("round", &[&c], c.array().clone()).is_ok());
    assert!(tape.no_grad(|t| t.record_without_gradient("round", &[&w], w.array().clone())).is_ok());
}
