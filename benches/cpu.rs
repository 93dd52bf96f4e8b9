//! The CPU backend's operations at DINOv2 ViT-S/14's shapes, 224 px, batch 8, and a whole LoRA training step made of them.

mod vit_step;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peftk::autograd::{AdamW, AdapterDims, AttentionDims, Backend, DoraAdapter, NormBackward};
use peftk::cpu::{Buffer, Cpu};
use vit_step::{Shape, Step};

const BATCH: usize = 8;
const TOKENS: usize = 257;
const ROWS: usize = BATCH * TOKENS;
const WIDTH: usize = 384;

fn numbers(cpu: &Cpu, len: usize) -> Buffer {
    let values: Vec<f32> = (0..len).map(|i| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.5).collect();
    cpu.upload(&values).expect("a CPU buffer")
}

fn operations(c: &mut Criterion) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group("vits14_224_b8");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));

    let (x, dy) = (numbers(&cpu, ROWS * WIDTH), numbers(&cpu, ROWS * WIDTH));
    let (wide, dwide) = (numbers(&cpu, ROWS * 4 * WIDTH), numbers(&cpu, ROWS * 4 * WIDTH));
    let qkv = numbers(&cpu, ROWS * 3 * WIDTH);
    let gamma = numbers(&cpu, WIDTH);

    let attention = AttentionDims { batch: BATCH, tokens: TOKENS, heads: 6, head_dim: 64 };
    let flops = (4 * ROWS * TOKENS * WIDTH) as u64;
    group.throughput(Throughput::Elements(flops));
    group.bench_function("attention (FLOP)", |b| b.iter(|| black_box(cpu.attention(attention, &qkv))));
    let (out, lse) = cpu.attention(attention, &qkv).expect("attention");
    group.throughput(Throughput::Elements(flops / 2 * 5));
    group.bench_function("attention_backward (FLOP)", |b| {
        b.iter(|| black_box(cpu.attention_backward(attention, &qkv, &out, &lse, &dy)));
    });

    let bytes = |numbers: usize| Throughput::Bytes(4 * numbers as u64);
    group.throughput(bytes(2 * ROWS * WIDTH));
    group.bench_function("layer_norm", |b| b.iter(|| black_box(cpu.layer_norm(ROWS, WIDTH, &x, &gamma, &gamma, 1e-6))));
    let (_, mean, rstd) = cpu.layer_norm(ROWS, WIDTH, &x, &gamma, &gamma, 1e-6).expect("layer_norm");
    group.throughput(bytes(3 * ROWS * WIDTH));
    group.bench_function("layer_norm_backward", |b| {
        b.iter(|| {
            let (x, weight, mean, rstd, dy) = (&x, &gamma, &mean, &rstd, &dy);
            let args = NormBackward { rows: ROWS, cols: WIDTH, x, weight, mean, rstd, dy };
            black_box(cpu.layer_norm_backward(args, (true, true), peftk::autograd::Sums::fresh()))
        });
    });
    group.bench_function("layer_scale", |b| b.iter(|| black_box(cpu.layer_scale(ROWS, WIDTH, &x, &dy, &gamma))));
    group.throughput(bytes(2 * ROWS * 4 * WIDTH));
    group.bench_function("gelu", |b| b.iter(|| black_box(cpu.gelu(&wide))));
    group.throughput(bytes(3 * ROWS * 4 * WIDTH));
    group.bench_function("gelu_backward", |b| b.iter(|| black_box(cpu.gelu_backward(&wide, &dwide))));
    group.throughput(bytes(2 * ROWS * WIDTH));
    group.bench_function("dropout", |b| b.iter(|| black_box(cpu.dropout(&x, 0.1, 3, 0))));

    let dims = AdapterDims { first_row: 0, rows: WIDTH, rank: 8, scale: 1.0 };
    let (w, a, b_matrix) = (numbers(&cpu, WIDTH * WIDTH), numbers(&cpu, 8 * WIDTH), numbers(&cpu, 8 * WIDTH));
    group.throughput(bytes(WIDTH * WIDTH));
    let magnitude = numbers(&cpu, WIDTH);
    group.bench_function("dora_gains", |b| {
        b.iter(|| {
            let (w, a, magnitude) = (&w, &a, &magnitude);
            let adapter = DoraAdapter { dims, k: WIDTH, w, a, b: &b_matrix, magnitude };
            black_box(cpu.dora_gains(&[adapter]))
        });
    });

    let mut state: Vec<Buffer> = (0..3).map(|_| numbers(&cpu, 1 << 20)).collect();
    state[2].iter_mut().for_each(|v| *v = v.abs());
    let grad = numbers(&cpu, 1 << 20);
    let step = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 10 };
    group.throughput(bytes(7 << 20));
    group.bench_function("adamw", |b| {
        b.iter(|| {
            let [value, m, v] = &mut state[..] else { unreachable!("three buffers") };
            cpu.adamw(step, value, &grad, m, v)
        });
    });
    group.finish();
}

fn linears(c: &mut Criterion) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group("linear_vits14_224_b8");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, k, n, adapters) in [
        ("qkv", WIDTH, 3 * WIDTH, false),
        ("qkv+lora_qv_r8", WIDTH, 3 * WIDTH, true),
        ("proj", WIDTH, WIDTH, false),
        ("fc1", WIDTH, 4 * WIDTH, false),
        ("fc2", 4 * WIDTH, WIDTH, false),
    ] {
        let linear = vit_step::Linear::new(&cpu, k, n, if adapters { &[0, 2 * WIDTH] } else { &[] }, WIDTH);
        let (x, dy) = (numbers(&cpu, ROWS * k), numbers(&cpu, ROWS * n));
        group.throughput(Throughput::Elements(2 * (ROWS * k * n) as u64));
        group.bench_function(format!("{name} (FLOP)"), |b| b.iter(|| black_box(linear.forward(&cpu, ROWS, &x))));
        let saved = linear.forward(&cpu, ROWS, &x);
        group.bench_function(format!("{name}_backward (FLOP)"), |b| {
            b.iter(|| black_box(linear.backward(&cpu, ROWS, &x, &saved, &dy)));
        });
    }
    group.finish();
}

fn whole_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("lora_step_vits14_224");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(BATCH as u64));
    let cpu = Cpu::new(None).expect("threads");
    let step = Step::new(&cpu, Shape { batch: BATCH, tokens: TOKENS, width: WIDTH, heads: 6, blocks: 12 });
    group.bench_function("batch 8 (images)", |b| b.iter(|| step.run(&cpu)));
    group.finish();
    step.print_times(&cpu);
}

criterion_group!(benches, operations, linears, whole_step);
criterion_main!(benches);
