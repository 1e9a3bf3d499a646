//! How fast each stage of a curation is and what memory it takes, on a heap of any size. Detector and embedder are left out: a face is taken to fill
//! its picture, and a thumbnail stands for its embedding. `facelatch curate describe` says how long those take.
//!
//! ```sh
//! facelatch curate make-noisy --data faces --out heap --people 250 --pictures 3 --wrong 0.1 --duplicates 0.8
//! cargo bench -p facelatch-trainer --no-default-features --bench curate -- heap work
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;

use facelatch_shared::align::CANONICAL_112;
use facelatch_shared::detection::{BoxPx, Detection, Faces, Landmarks5, Point};
use facelatch_shared::embedding::Embedding;
use facelatch_shared::frame::RgbView;
use facelatch_trainer::curate::candidates::{self, Plan};
use facelatch_trainer::curate::dedupe;
use facelatch_trainer::curate::names::Forbidden;
use facelatch_trainer::curate::rank::{self, Ranking};
use facelatch_trainer::curate::store::Source;
use facelatch_trainer::curate::{Store, describe, export, report};
use facelatch_trainer::evaluate::pictures::Eyes;
use facelatch_trainer::progress::Silent;

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from);
    let (Some(heap), Some(work)) = (paths.next(), paths.next()) else {
        println!("nothing to measure: give a heap and a new folder for the work");
        return Ok(());
    };
    let threads = std::thread::available_parallelism()?.get();
    let store = Store::create(&work)?;
    println!(
        "{:<12}{:>9}{:>10}{:>10}{:>14}{:>16}{:>10}",
        "stage", "pictures", "wall s", "CPU s", "a second", "a CPU second", "peak MB"
    );
    let plan = Plan {
        people: vec![],
        forbidden: Forbidden::new(std::iter::empty(), true),
        sources: vec![Source { path: heap, licence: None, origin: None }],
        most: 2000,
        settings: "bench".into(),
    };
    measured("candidates", || Ok(candidates::run(&store, &plan, false, &Silent)?.seen))?;
    let mut eyes: Vec<Thumbnail> = (0..threads).map(|_| Thumbnail).collect();
    measured("describe*", || Ok(describe::run(&store, &mut eyes, "thumbnail", false, &Silent)?.seen))?;
    let ranking = Ranking { share: 0.9, threads, ..Ranking::default() };
    measured("rank", || Ok(rank::run(&store, &ranking, false, &Silent)?.seen))?;
    let options = dedupe::Options { threshold: 0.6, across: 0.75, threads };
    measured("dedupe", || Ok(dedupe::run(&store, &options, false, &Silent)?.seen))?;
    measured("report", || Ok(report::rows(&store, None)?.first().map_or(0, |row| row.pictures as u64)))?;
    measured("export", || {
        Ok(export::run(&store, &work.join("set"), ("bench", 5000, threads), &Silent)?.faces as u64)
    })?;
    Ok(())
}

fn measured(name: &str, work: impl FnOnce() -> Result<u64, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    // The peak begins anew where the kernel allows it.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    let (begun, cpu) = (std::time::Instant::now(), cpu_seconds());
    let pictures = work()?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rate = |seconds: f64| pictures as f64 / seconds.max(1e-3);
    println!(
        "{name:<12}{pictures:>9}{wall:>10.1}{cpu:>10.1}{:>14.0}{:>16.0}{:>10.0}",
        rate(wall),
        rate(cpu),
        peak_mb()
    );
    Ok(())
}

/// User and system time of this process so far; a tick is a hundredth of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}

fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

struct Thumbnail;

impl Eyes for Thumbnail {
    type Error = Infallible;

    fn find(&mut self, picture: &RgbView<'_>) -> Result<Faces, Infallible> {
        let mut faces = Faces::new();
        let side = picture.width_px() as f32;
        let at = |p: Point| Point::new((p.x + 8.0) * side / 128.0, (p.y + 8.0) * side / 128.0);
        let bbox = BoxPx { x: 0.0, y: 0.0, w: side, h: side };
        // There is room for one.
        let _ = faces.push(Detection { bbox, landmarks: Landmarks5(CANONICAL_112.0.map(at)), score: 0.9 });
        Ok(faces)
    }

    fn embed_at(&mut self, picture: &RgbView<'_>, _: &Landmarks5) -> Result<Embedding, Infallible> {
        let (width, height) = (picture.width_px() as isize, picture.height_px() as isize);
        let grey = |at: usize| {
            let (x, y) = ((at % 11) as isize, (at / 11) as isize);
            let pixel = picture.pixel_clamped((2 * x + 1) * width / 22, (2 * y + 1) * height / 24);
            pixel.iter().map(|&c| f32::from(c)).sum::<f32>()
        };
        let mut raw: [f32; 128] = std::array::from_fn(grey);
        let mean = raw.iter().sum::<f32>() / 128.0;
        raw.iter_mut().for_each(|v| *v -= mean);
        // A picture of one colour is near none.
        Ok(Embedding::from_raw(&raw).unwrap_or_else(|_| {
            let mut one = [0.0; 128];
            one[0] = 1.0;
            Embedding::from_raw(&one).unwrap_or_else(|_| unreachable!("its length is one"))
        }))
    }
}
