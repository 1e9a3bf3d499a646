//! What each alignment costs a face. `cargo bench -p facelatch-tests --no-default-features --bench align`.
//!
//! Without the nets: fiducials are at hand, and `warp2d` finds at once what it looks for, that is, it warps the working picture once.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use facelatch_shared::align::frontalize::{FRONTAL_PX, frontalize};
use facelatch_shared::align::similarity::{upright, warp};
use facelatch_shared::align::warp2d::{ANCHORS_112, converge, work_anchors};
use facelatch_shared::align::{
    AlignError, CHIP_BYTES, CHIP_PX, Fiducials6, Fiducials68, camera, five, shape, warp_chip,
};
use facelatch_shared::detection::Point;
use facelatch_shared::frame::RgbView;

const WORK_PX: usize = 168;

fn align(criterion: &mut Criterion) {
    let pixels: Vec<u8> = (0..640 * 480 * 3_usize).map(|i| (i * 7919 % 251) as u8).collect();
    let Ok(frame) = RgbView::new(&pixels, 640, 480) else { panic!("the frame is 640x480") };
    // Turned by 25 degrees, 53 px between the eyes.
    let (s, c) = 25.0_f32.to_radians().sin_cos();
    let fiducials = Fiducials68::all_visible(std::array::from_fn(|i| {
        let [x, y, z] = shape::positions()[i];
        Point::new(320.0 + 1.5 * (c * x - s * z), 130.0 + 1.5 * y)
    }));
    let landmarks = fiducials.five();
    let six = Fiducials6(ANCHORS_112.map(|p| Point::new(240.0 + 1.5 * p.x, 130.0 + 1.5 * p.y)));
    let agreed = work_anchors(CHIP_PX, WORK_PX);
    let mut chip = Box::new([0_u8; CHIP_BYTES]);
    let mut frontal = vec![0_u8; FRONTAL_PX * FRONTAL_PX * 3];
    let mut work = vec![0_u8; WORK_PX * WORK_PX * 3];

    let mut group = criterion.benchmark_group("align one face");
    group.bench_function("none, 112 px", |b| {
        b.iter(|| upright(black_box(&landmarks)).and_then(|t| warp(&frame, &t, CHIP_PX, &mut chip[..])));
    });
    group.bench_function("similarity, 112 px", |b| {
        b.iter(|| warp_chip(&frame, black_box(&landmarks), &mut chip));
    });
    group.bench_function("warp2d, one round, 112 px", |b| {
        b.iter(|| {
            converge::<AlignError>(&frame, black_box(&six), CHIP_PX, WORK_PX, &mut work, |_| Ok(agreed))
                .and_then(|found| warp(&frame, &found.to_chip, CHIP_PX, &mut chip[..]))
        });
    });
    group.bench_function("frontal3d, 112 px", |b| {
        b.iter(|| frontalize(&frame, black_box(&fiducials), CHIP_PX, &mut chip[..]).is_ok());
    });
    group.bench_function("frontal3d, 152 px", |b| {
        b.iter(|| frontalize(&frame, black_box(&fiducials), FRONTAL_PX, &mut frontal).is_ok());
    });
    group.bench_function("camera and pose alone", |b| {
        b.iter(|| camera::fit(black_box(&fiducials)).map(|fit| fit.camera.pose()));
    });
    group.bench_function("fiducials from five landmarks", |b| {
        b.iter(|| five::from_five(black_box(&landmarks)));
    });
    group.finish();
}

criterion_group!(benches, align);
criterion_main!(benches);
