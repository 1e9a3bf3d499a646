//! Alignment works on the caller's buffers: a counting allocator sees nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch_shared::align::warp2d::{anchors, converge};
use facelatch_shared::align::{
    AlignError, CANONICAL_112, CHIP_BYTES, Fiducials6, Fiducials68, camera, five, frontalize, shape,
    warp_chip,
};
use facelatch_shared::detection::Point;
use facelatch_shared::frame::RgbView;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

// The only test of this file: another thread's allocations would be counted too.
#[test]
fn no_step_of_alignment_allocates() {
    let pixels = vec![128_u8; 320 * 240 * 3];
    let frame = RgbView::new(&pixels, 320, 240).unwrap();
    let fiducials = Fiducials68::all_visible(std::array::from_fn(|i| {
        let [x, y, z] = shape::positions()[i];
        Point::new(160.0 + 0.9 * x - 0.4 * z, 40.0 + y)
    }));
    let six = Fiducials6(anchors(112).map(|p| Point::new(p.x + 80.0, p.y + 40.0)));
    let (mut chip, mut frontal, mut work) =
        (Box::new([0_u8; CHIP_BYTES]), vec![0_u8; 152 * 152 * 3], vec![0_u8; 160 * 160 * 3]);

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let similarity = warp_chip(&frame, &CANONICAL_112, &mut chip);
    let mut calls = 0;
    let warp2d = converge::<AlignError>(&frame, &six, 112, 160, &mut work, |view| {
        calls += 1;
        Ok(Fiducials6(
            anchors(107 + calls).map(|p| Point::new(p.x + 26.0, p.y + view.height_px() as f32 / 6.0)),
        ))
    });
    let frontal3d = frontalize::frontalize(&frame, &fiducials, 152, &mut frontal);
    let pose = camera::fit(&fiducials).map(|fit| fit.camera.pose());
    let five = five::from_five(&fiducials.five());
    let after = ALLOCATIONS.load(Ordering::Relaxed);

    assert_eq!(after, before, "alignment allocated");
    assert!(similarity.is_ok() && warp2d.is_ok() && frontal3d.is_ok() && pose.is_ok() && five.is_ok());
    assert!(calls >= 2, "the iteration was exercised");
    // The counter counts.
    drop(vec![0_u8; 10]);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > after);
}
