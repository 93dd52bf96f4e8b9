//! A ViT's LoRA training step as bare operations in their order: what the backend alone costs, without tape or data.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peftk::autograd::{
    Adapter, AdapterDims, AttentionDims, Backend, LinearBackward, LinearDims, LinearOutput, NormBackward, Sums,
};
use peftk::cpu::{Buffer, Cpu};

const RANK: usize = 8;

/// A frozen linear with LoRA on some row ranges.
pub struct Linear {
    k: usize,
    n: usize,
    w: Buffer,
    bias: Buffer,
    adapters: Vec<(AdapterDims, Buffer, Buffer)>,
}

fn numbers(cpu: &Cpu, len: usize, size: f32) -> Buffer {
    let values: Vec<f32> = (0..len).map(|i| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * size).collect();
    cpu.upload(&values).expect("a CPU buffer")
}

impl Linear {
    pub fn new(cpu: &Cpu, k: usize, n: usize, first_rows: &[usize], rows: usize) -> Self {
        let adapters = first_rows.iter().map(|&first_row| {
            let dims = AdapterDims { first_row, rows, rank: RANK, scale: 1.0 };
            (dims, numbers(cpu, RANK * k, 0.05), numbers(cpu, rows * RANK, 0.05))
        });
        Self { k, n, w: numbers(cpu, n * k, 0.05), bias: numbers(cpu, n, 0.1), adapters: adapters.collect() }
    }

    fn adapters(&self) -> Vec<Adapter<'_, Buffer>> {
        self.adapters.iter().map(|(dims, a, b)| Adapter { dims: *dims, a, b, gain: None, dropped: None }).collect()
    }

    fn dims(&self, m: usize) -> LinearDims {
        LinearDims { m, k: self.k, n: self.n }
    }

    pub fn forward(&self, cpu: &Cpu, m: usize, x: &Buffer) -> LinearOutput<Buffer> {
        cpu.linear(self.dims(m), x, &self.w, Some(&self.bias), &self.adapters()).expect("linear")
    }

    pub fn backward(&self, cpu: &Cpu, m: usize, x: &Buffer, saved: &LinearOutput<Buffer>, dy: &Buffer) -> Buffer {
        let grads = cpu.linear_backward(
            LinearBackward {
                dims: self.dims(m),
                x: Some(x),
                w: &self.w,
                bias: Some(&self.bias),
                y: None,
                adapters: self.adapters(),
                t: saved.t.iter().collect(),
                z: saved.z.iter().map(Option::as_ref).collect(),
                dy,
                need_x: true,
                need_w: false,
                need_bias: false,
                need_adapter: true,
            },
            Sums::fresh(),
        );
        grads.ok().and_then(|grads| grads.x).expect("dx")
    }
}

/// A ViT's sizes.
#[derive(Clone, Copy)]
pub struct Shape {
    pub batch: usize,
    pub tokens: usize,
    pub width: usize,
    pub heads: usize,
    pub blocks: usize,
}

/// One block's weights; all blocks share them here, as their values do not change the time.
pub struct Step {
    shape: Shape,
    x: Buffer,
    gamma: Buffer,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    times: RefCell<BTreeMap<&'static str, Duration>>,
}

/// What a block keeps for its backward pass.
struct Saved {
    x: Buffer,
    norm1: (Buffer, Buffer, Buffer),
    qkv: LinearOutput<Buffer>,
    attention: (Buffer, Buffer),
    proj: LinearOutput<Buffer>,
    middle: Buffer,
    norm2: (Buffer, Buffer, Buffer),
    fc1: LinearOutput<Buffer>,
    gelu: Buffer,
    fc2: LinearOutput<Buffer>,
}

impl Step {
    pub fn new(cpu: &Cpu, shape: Shape) -> Self {
        let d = shape.width;
        Self {
            shape,
            x: numbers(cpu, shape.batch * shape.tokens * d, 1.0),
            gamma: numbers(cpu, d, 0.5),
            qkv: Linear::new(cpu, d, 3 * d, &[0, 2 * d], d),
            proj: Linear::new(cpu, d, d, &[], 0),
            fc1: Linear::new(cpu, d, 4 * d, &[], 0),
            fc2: Linear::new(cpu, 4 * d, d, &[], 0),
            times: RefCell::default(),
        }
    }

    fn timed<T>(&self, name: &'static str, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        *self.times.borrow_mut().entry(name).or_default() += start.elapsed();
        result
    }

    fn attention_dims(&self) -> AttentionDims {
        let Shape { batch, tokens, heads, width, .. } = self.shape;
        AttentionDims { batch, tokens, heads, head_dim: width / heads }
    }

    fn block(&self, cpu: &Cpu, x: Buffer) -> (Saved, Buffer) {
        let (rows, cols) = (self.shape.batch * self.shape.tokens, self.shape.width);
        let g = &self.gamma;
        let norm = |x: &Buffer| self.timed("layer_norm", || cpu.layer_norm(rows, cols, x, g, g, 1e-6).expect("norm"));
        let residual =
            |x: &Buffer, h: &Buffer| self.timed("layer_scale", || cpu.layer_scale(rows, cols, x, h, g).expect("scale"));
        let norm1 = norm(&x);
        let qkv = self.timed("linear qkv", || self.qkv.forward(cpu, rows, &norm1.0));
        let attention = self.timed("attention", || cpu.attention(self.attention_dims(), &qkv.y).expect("attention"));
        let proj = self.timed("linear proj", || self.proj.forward(cpu, rows, &attention.0));
        let middle = residual(&x, &proj.y);
        let norm2 = norm(&middle);
        let fc1 = self.timed("linear fc1", || self.fc1.forward(cpu, rows, &norm2.0));
        let gelu = self.timed("gelu", || cpu.gelu(&fc1.y).expect("gelu"));
        let fc2 = self.timed("linear fc2", || self.fc2.forward(cpu, rows, &gelu));
        let out = residual(&middle, &fc2.y);
        (Saved { x, norm1, qkv, attention, proj, middle, norm2, fc1, gelu, fc2 }, out)
    }

    fn block_backward(&self, cpu: &Cpu, saved: &Saved, dy: Buffer) -> Buffer {
        let (rows, cols) = (self.shape.batch * self.shape.tokens, self.shape.width);
        let g = &self.gamma;
        let scaled = |dy: &Buffer| {
            self.timed("layer_scale backward", || {
                cpu.layer_scale_backward(rows, cols, None, g, dy, (true, false), Sums::fresh())
                    .ok()
                    .and_then(|d| d.0)
                    .expect("dh")
            })
        };
        let through_norm = |x: &Buffer, norm: &(Buffer, Buffer, Buffer), dy: &Buffer| {
            self.timed("layer_norm backward", || {
                let args = NormBackward { rows, cols, x, weight: g, mean: &norm.1, rstd: &norm.2, dy };
                let grads = cpu.layer_norm_backward(args, (true, false), Sums::fresh());
                grads.ok().and_then(|grads| grads.0).expect("dx")
            })
        };
        let add = |mut acc: Buffer, x: &Buffer| {
            self.timed("add", || cpu.add_assign(&mut acc, x).expect("add"));
            acc
        };
        let dh = scaled(&dy);
        let dgelu = self.timed("linear fc2 backward", || self.fc2.backward(cpu, rows, &saved.gelu, &saved.fc2, &dh));
        let dfc1 = self.timed("gelu backward", || cpu.gelu_backward(&saved.fc1.y, &dgelu).expect("gelu"));
        let dnorm =
            self.timed("linear fc1 backward", || self.fc1.backward(cpu, rows, &saved.norm2.0, &saved.fc1, &dfc1));
        let dy = add(dy, &through_norm(&saved.middle, &saved.norm2, &dnorm));
        let dh = scaled(&dy);
        let (out, lse) = &saved.attention;
        let dattention = self.timed("linear proj backward", || self.proj.backward(cpu, rows, out, &saved.proj, &dh));
        let dqkv = self.timed("attention backward", || {
            cpu.attention_backward(self.attention_dims(), &saved.qkv.y, out, lse, &dattention).expect("attention")
        });
        let dnorm =
            self.timed("linear qkv backward", || self.qkv.backward(cpu, rows, &saved.norm1.0, &saved.qkv, &dqkv));
        add(dy, &through_norm(&saved.x, &saved.norm1, &dnorm))
    }

    /// Forward and backward through all blocks.
    pub fn run(&self, cpu: &Cpu) -> Buffer {
        let mut x = cpu.copy(&self.x).expect("copy");
        let mut saved = Vec::new();
        for _ in 0..self.shape.blocks {
            let (kept, out) = self.block(cpu, x);
            saved.push(kept);
            x = out;
        }
        while let Some(kept) = saved.pop() {
            x = self.block_backward(cpu, &kept, x);
        }
        x
    }

    /// Where one more step's time goes, on stderr.
    pub fn print_times(&self, cpu: &Cpu) {
        self.times.borrow_mut().clear();
        let start = Instant::now();
        self.run(cpu);
        let total = start.elapsed();
        eprintln!("one step of {} images: {:.0} ms", self.shape.batch, 1e3 * total.as_secs_f64());
        let mut times: Vec<_> = self.times.borrow().iter().map(|(&name, &time)| (time, name)).collect();
        times.sort();
        for (time, name) in times.iter().rev() {
            eprintln!(
                "{:8.1} ms {:4.1} % {name}",
                1e3 * time.as_secs_f64(),
                100.0 * time.as_secs_f64() / total.as_secs_f64()
            );
        }
    }
}
