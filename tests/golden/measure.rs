//! Reading the cases and measuring errors as tests/golden/data/README.md says.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

/// The folder of the cases.
pub(crate) fn data() -> PathBuf {
    // Collected for another machine, the executable runs in a copy of the tree that may lie elsewhere.
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if built_in.is_dir() { built_in } else { Path::new(".") };
    root.join("tests/golden/data")
}

/// A case's tensor as f64, with its shape.
pub(crate) fn tensor(file: &SafeTensors<'_>, name: &str) -> (Vec<f64>, Vec<usize>) {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
    let values = match view.dtype() {
        safetensors::Dtype::F32 => {
            bytemuck::pod_collect_to_vec::<u8, f32>(view.data()).into_iter().map(f64::from).collect()
        }
        safetensors::Dtype::I64 => {
            bytemuck::pod_collect_to_vec::<u8, i64>(view.data()).into_iter().map(|x| x as f64).collect()
        }
        safetensors::Dtype::F64 => bytemuck::pod_collect_to_vec::<u8, f64>(view.data()),
        other => panic!("{name}: {other:?}"),
    };
    (values, view.shape().to_vec())
}

pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// max |a - b| / max(max |b|, floor).
pub(crate) fn error(got: &[f32], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(got.len(), expected.len());
    let difference = got.iter().zip(expected).fold(0.0_f64, |most, (&a, &b)| {
        let d = (f64::from(a) - b).abs();
        if d.is_nan() { f64::INFINITY } else { most.max(d) }
    });
    difference / largest(expected).max(floor)
}
