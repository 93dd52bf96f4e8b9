use std::io::Write;
use std::path::Path;

use peftk::vit::Family;
use zip::write::SimpleFileOptions;

use crate::common::{open, refusal, says};

/// A small model as torch 2.15 saved it: f32 views into one storage, f16, bf16, a transposed tensor, a Parameter.
pub const SAVED_BY_TORCH: &[u8] = include_bytes!("fixtures/meta_tiny.pth");

/// A pickle by hand, protocol 2.
#[derive(Clone, Default)]
pub struct Pickle(Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn set(&mut self, at: usize, byte: u8) {
        self.0[at] = byte;
    }
    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }
    pub fn int(self, value: i32) -> Self {
        self.op(b"J").op(&value.to_le_bytes())
    }
    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }
    /// A tuple of integers.
    pub fn tuple(self, values: &[i32]) -> Self {
        values.iter().fold(self.op(b"("), |p, &v| p.int(v)).op(b"t")
    }
    /// A float tensor in storage `0` of `count` values.
    pub fn tensor(self, count: i32, offset: i32, shape: &[i32], stride: &[i32]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text("0")
            .text("cpu")
            .int(count)
            .op(b"tQ")
            .int(offset)
            .tuple(shape)
            .tuple(stride)
            .op(b"\x89}tR")
    }
    /// `{name: what was built by `value`}`, and the end.
    pub fn entry(name: &str, value: impl FnOnce(Self) -> Self) -> Self {
        value(Self::new().op(b"}").text(name)).op(b"s.")
    }
}

/// torch's archive around a pickle and one storage.
pub fn archive(path: &Path, pickle: &Pickle, storage: &[f32]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(&pickle.0).unwrap();
    zip.start_file("archive/data/0", stored).unwrap();
    let bytes: Vec<u8> = storage.iter().flat_map(|v| v.to_le_bytes()).collect();
    zip.write_all(&bytes).unwrap();
    zip.finish().unwrap();
}

#[test]
fn what_torch_saved_is_read_value_by_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dinov2.pth");
    std::fs::write(&path, SAVED_BY_TORCH).unwrap();
    let (read, notes) = open(&path).unwrap();
    let config = &read.config;
    assert_eq!(config.family, Family::Meta);
    assert_eq!((config.hidden, config.layers, config.mlp_hidden, config.patch, config.image_size), (64, 1, 8, 2, 6));
    assert_eq!(notes.len(), 1);
    // Value i of the tensor at place j among the sorted names is ((7 i + j) mod 251 - 125) / 64.
    let value = |i: usize, j: usize| ((7 * i + j) % 251) as f32 / 64.0 - 125.0 / 64.0;
    let check = |name: &str, j: usize, from: usize| {
        let tensor = &read.state[name];
        for (i, &found) in tensor.data.iter().enumerate() {
            assert_eq!(found, value(from + i, j), "{name} at {i}");
        }
    };
    let block = "encoder.layer.0.";
    check(&format!("{block}attention.output.dense.bias"), 0, 0);
    check(&format!("{block}attention.output.dense.weight"), 1, 0);
    check(&format!("{block}attention.attention.key.bias"), 2, 64);
    check(&format!("{block}attention.attention.query.weight"), 3, 0);
    check(&format!("{block}attention.attention.value.weight"), 3, 2 * 64 * 64);
    check(&format!("{block}layer_scale2.lambda1"), 5, 0);
    check(&format!("{block}mlp.fc1.weight"), 7, 0);
    check(&format!("{block}mlp.fc2.weight"), 9, 0);
    check("embeddings.cls_token", 14, 0);
    check("embeddings.mask_token", 15, 0);
    check("layernorm.weight", 17, 0);
    check("embeddings.patch_embeddings.projection.weight", 19, 0);
    check("embeddings.position_embeddings", 20, 0);
}

#[test]
fn code_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evil.pth");
    let error = |pickle: Pickle| {
        archive(&path, &pickle, &[0.0; 4]);
        refusal(&path)
    };
    says(&error(Pickle::new().global("posix", "system").text("true").op(b"\x85R.")), &["'posix.system'", "refused"]);
    let stack_global = Pickle::new().text("builtins").text("eval").op(b"\x93.");
    says(&error(stack_global), &["'builtins.eval'"]);
    says(&error(Pickle::entry("x", |p| p.global("torch", "LongStorage"))), &["'torch.LongStorage'"]);
    says(&error(Pickle::new().op(b"(i__main__\nA\n.")), &["opcode 0x69"]);
    says(&error(Pickle::new().global("collections", "OrderedDict").op(b"(K\x01tR.")), &["has no place"]);
    says(&error(Pickle::new().op(b"]K\x01b.")), &["attributes of a list"]);
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    let error = |count, offset, shape: &[i32], stride: &[i32]| {
        archive(&path, &Pickle::entry("cls_token", |p| p.tensor(count, offset, shape, stride)), &[0.5; 8]);
        refusal(&path)
    };
    says(&error(8, 1, &[8], &[1]), &["'cls_token'", "[8]", "outside its storage of 8"]);
    says(&error(8, 0, &[2, 4], &[8, 1]), &["outside"]);
    says(&error(8, 0, &[i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0]), &["outside"]);
    says(&error(8, 0, &[9], &[0]), &["outside"]);
    says(&error(8, -1, &[1], &[1]), &["extent -1"]);
    says(&error(8, 0, &[2, 2], &[1]), &["malformed"]);
    says(&error(9, 0, &[9], &[1]), &["32 bytes, expected 36"]);
    says(&error(7, 0, &[7], &[1]), &["longer than 28"]);
    says(&error(i32::MAX, 0, &[i32::MAX], &[1]), &["32 bytes"]);
    // A good one gets past the reader to the model's own checks.
    says(&error(8, 0, &[2, 4], &[1, 2]), &["not a DINOv2"]);
}

#[test]
fn what_would_take_far_more_memory_than_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    let error = |pickle: Pickle| {
        archive(&path, &pickle, &[0.5; 4096]);
        refusal(&path)
    };
    // Many names for one tensor: two are tied weights, twenty no file has.
    let tied = |names: u8| {
        let first = Pickle::new().op(b"}").text("a").tensor(4096, 0, &[4096], &[1]).op(b"q\x01s");
        (1..names).fold(first, |p, name| p.text(&format!("b{name}")).op(b"h\x01s")).op(b".")
    };
    says(&error(tied(2)), &["not a DINOv2"]);
    says(&error(tied(20)), &["more values than a file of this length"]);
    // Every reference to a storage copies its name, every tensor its shape.
    let long = "0".repeat(65);
    let named = Pickle::new().op(b"(").text("storage").global("torch", "FloatStorage").text(&long).text("cpu").int(1);
    says(&error(named.op(b"tQ.")), &["not a storage"]);
    says(&error(Pickle::entry("x", |p| p.tensor(1, 0, &[1; 9], &[1; 9]))), &["9 dimensions, expected at most 8"]);
}

#[test]
fn other_shapes_of_file_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        refusal(&path)
    };
    says(&error(b""), &["not a .pth file"]);
    says(&error(b"\x80\x02\x8a\x0alegacy"), &["before 1.6"]);
    says(&error(b"PK\x03\x04 and no more"), &["damaged zip"]);
    says(&error(&SAVED_BY_TORCH[..SAVED_BY_TORCH.len() / 2]), &["damaged zip"]);
    let error = |pickle: Pickle| {
        archive(&path, &pickle, &[0.0]);
        refusal(&path)
    };
    says(&error(Pickle::new().op(b"]")), &["ends too early"]);
    says(&error(Pickle::new().op(b"].")), &["expected a dictionary", "a list"]);
    says(&error(Pickle::entry("model", |p| p.op(b"}"))), &["under 'model'", "a dictionary"]);
    says(&error(Pickle::new().op(b".")), &["not there"]);
    says(&error(Pickle::new().op(b"h\x07.")), &["recalls"]);
    // Nesting as deep as the file is long costs no stack.
    let deep = (0..200_000).fold(Pickle::new().op(b")"), |p, _| p.op(b"\x85")).op(b".");
    says(&error(deep), &["a tuple"]);
}
