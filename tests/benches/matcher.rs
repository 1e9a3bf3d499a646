//! 1:N search: one probe against 10,000 people with five templates each. `cargo bench -p facelatch-tests --bench matcher`.
//!
//! The scan is plain safe Rust; that the compiler vectorizes it shows in the second figure, the same work done one byte at a time.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
use facelatch_shared::gallery::Gallery;
use facelatch_shared::person::SubjectId;

const PEOPLE: u32 = 10_000;
const TEMPLATES: u32 = 5;
const MODEL: ModelBinding = ModelBinding([1; 16]);

fn template(seed: u32) -> Template {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let raw: Vec<f32> = (0..DIM)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state % 2001) as f32 - 1000.0
        })
        .collect();
    match Embedding::from_raw(&raw) {
        Ok(embedding) => Template::quantize(&embedding),
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

fn identify(criterion: &mut Criterion) {
    let templates: Vec<Template> = (0..PEOPLE * TEMPLATES).map(template).collect();
    let mut gallery = Gallery::default();
    for (at, template) in (0_u32..).zip(&templates) {
        gallery.insert(SubjectId(at / TEMPLATES), MODEL, template);
    }
    let probe = template(u32::MAX);
    let mut group = criterion.benchmark_group("10,000 people x 5 templates");
    group.throughput(Throughput::Elements(u64::from(PEOPLE * TEMPLATES)));
    group.bench_function("identify", |b| b.iter(|| gallery.identify(black_box(&probe), MODEL)));
    group.bench_function("one byte at a time", |b| {
        b.iter(|| templates.iter().map(|t| scalar_dot(black_box(&probe), t)).max());
    });
    group.finish();
}

/// The same products, kept from being vectorized.
fn scalar_dot(a: &Template, b: &Template) -> i32 {
    let mut sum = 0;
    for (x, y) in a.codes().iter().zip(b.codes()) {
        sum = black_box(sum + i32::from(*x) * i32::from(*y));
    }
    sum
}

criterion_group!(benches, identify);
criterion_main!(benches);
