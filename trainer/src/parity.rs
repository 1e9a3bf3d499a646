//! One net in several forms: does each still compute the same, and what does it cost?

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::embedding::{DIM, Embedding};
use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::contract::ManifestEntry;
use facelatch_shared::vision::embed::Embedder;
use facelatch_shared::vision::runtime::Network;
use serde::Serialize;
use tch::Tensor;
use thiserror::Error;

use crate::evaluate::all_pairs::{AllPairs, LEAST_IMPOSTORS, Rate};
use crate::evaluate::chips::{self, Chip};
use crate::evaluate::curves::{self, Series};
use crate::evaluate::lfw::NOT_FOUND;
use crate::evaluate::pairs::{Pairs, Picture};
use crate::evaluate::roc::{self, Roc};
use crate::export::layers::{LayerForm, write};
use crate::export::onnx::Form;
use crate::export::{CHIP_PX, ExportError, RunData};
use crate::model::layers::Mode;
use crate::progress::Progress;
use crate::quantize::net::Net;
use crate::quantize::{Agreement, Quantized, faces};

/// The net in question.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The float net as it was trained.
    pub run: &'a RunData,
    /// Folded.
    pub net: &'a Net,
    /// With integer arithmetic.
    pub quantized: Option<&'a Quantized>,
}

/// What to measure on.
#[derive(Debug)]
pub struct Job<'a> {
    /// Pictures, sorted.
    pub pictures: &'a [Picture],
    /// Their chips.
    pub chips: &'a [Option<Chip>],
    /// Pairs for accuracy; their pictures are also compared with all others.
    pub pairs: &'a Pairs,
    /// Pairs that choose thresholds for accuracy.
    pub calibrate: Option<&'a Pairs>,
    /// An embedder beside the forms.
    pub teacher: Option<(&'a Path, &'a ManifestEntry)>,
    /// Threads.
    pub threads: usize,
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// `float`, `f32`, `w8`, `int8`, or the teacher's name.
    pub name: String,
    /// Size of the file.
    pub bytes: Option<usize>,
    /// Median time of one face on one thread.
    pub median_ms: f64,
    /// With the float net.
    pub agreement: Option<Agreement>,
    /// Accuracy on the pairs, 0 to 1.
    pub accuracy: f64,
    /// Share of the pairs of one person that pass at a false-accept rate of 1e-2 on the pairs.
    pub tar_at_far_1e2: f64,
    /// The same at 1e-3 over all pairs of pictures.
    pub all_pairs_1e3: Rate,
    /// Over all pairs, for a plot.
    #[serde(skip)]
    all: AllPairs,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerNoise {
    /// Its name.
    pub name: String,
    /// Whether it is integer in the integer form.
    pub integer: bool,
    /// 10·log₁₀(power of the float net's value / power of the difference), one for each of [`Report::layer_forms`].
    pub signal_to_noise_db: Vec<f64>,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Pairs of one person and of two.
    pub pairs: (usize, usize),
    /// Pictures of the pairs.
    pub pictures: usize,
    /// Pictures without a face.
    pub faces_not_found: usize,
    /// All pairs of one person and of two.
    pub all_pairs: (u64, u64),
    /// The strictest rate that all pairs can speak about.
    pub least_fmr: f64,
    /// The forms.
    pub forms: Vec<Compared>,
    /// Which forms the layers were compared in.
    pub layer_forms: Vec<String>,
    /// The layers.
    pub layers: Vec<LayerNoise>,
    /// In words: whether the integer form is near enough, and which layer costs it if not.
    pub verdict: Vec<String>,
}

/// Most that int8 may lose on the pairs, in points.
pub const MOST_ACCURACY_LOST: f64 = 0.2;
/// Most that it may lose in TAR at FAR 1e-3 over all pairs, in points.
pub const MOST_TAR_LOST: f64 = 1.0;
/// Rounds of timing.
const ROUNDS: usize = 30;
/// Faces on which layers are compared.
const LAYER_FACES: usize = 8;

impl Report {
    /// The exported float form answers as the net: mean cosine above 0.99999.
    #[must_use]
    pub fn float_is_the_net(&self) -> bool {
        self.forms.iter().filter(|f| f.name == "f32").all(|f| f.agreement.is_some_and(|a| a.mean > 0.99999))
    }
}

/// Compares all forms.
///
/// # Errors
/// [`ParityError`].
pub fn compare(subject: &Subject<'_>, job: &Job<'_>, progress: &dyn Progress) -> Result<Report, ParityError> {
    let mut forms = vec![
        ("f32", LayerForm::Float(subject.net, Form::F32)),
        ("w8", LayerForm::Float(subject.net, Form::W8)),
    ];
    if let Some(quantized) = subject.quantized {
        forms.push(("int8", LayerForm::Integer(quantized)));
    }
    let mut measured: Vec<(String, Option<usize>, Vec<Option<Embedding>>)> = Vec::new();
    measured.push(("float".into(), None, in_libtorch(subject.run, job.chips)?));
    let dir = tempfile_dir()?;
    let mut timed = Vec::new();
    for (name, form) in &forms {
        let bytes = write(*form, false)?;
        let entry = entry(name, &bytes, dir.path())?;
        let mut embedders =
            (0..job.threads).map(|_| Embedder::load(dir.path(), &entry)).collect::<Result<Vec<_>, _>>()?;
        measured.push((
            (*name).into(),
            Some(bytes.len()),
            chips::embed(job.chips, &mut embedders, progress)?,
        ));
        timed.extend(embedders.into_iter().next());
    }
    if let Some((models, entry)) = job.teacher {
        let mut embedders =
            (0..job.threads).map(|_| Embedder::load(models, entry)).collect::<Result<Vec<_>, _>>()?;
        let bytes = std::fs::metadata(models.join(&entry.file)).ok().map(|m| m.len() as usize);
        measured.push((entry.name.clone(), bytes, chips::embed(job.chips, &mut embedders, progress)?));
        timed.extend(embedders.into_iter().next());
    }
    let times = interleaved(subject.run, &mut timed, job.chips)?;
    let float = measured[0].2.clone();
    let mut rows = Vec::new();
    for ((name, bytes, embeddings), median_ms) in measured.into_iter().zip(times) {
        let is_form = job.teacher.is_none_or(|(_, entry)| entry.name != name);
        rows.push(row(job, &name, bytes, &embeddings, is_form.then_some(&float), median_ms)?);
    }
    let (layer_forms, layers) = layer_noise(subject, &forms, job.chips)?;
    let verdict = verdict(subject, &rows, &layers);
    let genuine = job.pairs.pairs.iter().filter(|p| p.same()).count();
    let used = pictures_of(job.pairs);
    let found =
        |picture: &&Picture| job.pictures.binary_search(picture).is_ok_and(|i| job.chips[i].is_some());
    Ok(Report {
        pairs: (genuine, job.pairs.pairs.len() - genuine),
        pictures: used.len(),
        faces_not_found: used.len() - used.iter().filter(|p| found(p)).count(),
        all_pairs: (rows[0].all.genuine_pairs(), rows[0].all.impostor_pairs()),
        least_fmr: LEAST_IMPOSTORS as f64 / rows[0].all.impostor_pairs() as f64,
        forms: rows,
        layer_forms,
        layers,
        verdict,
    })
}

/// TAR and DET curves of all forms in tract, and of the teacher.
#[must_use]
pub fn curves(report: &Report, rates: &[f64]) -> String {
    let series: Vec<Series> = report
        .forms
        .iter()
        .filter(|form| form.name != "float")
        .map(|form| {
            let points = rates.iter().copied().zip(form.all.tmr_at(rates, 1)).collect();
            Series { name: form.name.clone(), points }
        })
        .collect();
    let pairs = format!(
        "{} pictures, all against all: {} pairs of one person, {} of two; bands: 95 %, people drawn {} times",
        report.pictures,
        report.all_pairs.0,
        report.all_pairs.1,
        crate::evaluate::all_pairs::DRAWS
    );
    curves::svg("Verification errors of each form", &pairs, &series)
}

fn pictures_of(pairs: &Pairs) -> Vec<&Picture> {
    let all: std::collections::BTreeSet<&Picture> =
        pairs.pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
    all.into_iter().collect()
}

fn row(
    job: &Job<'_>,
    name: &str,
    bytes: Option<usize>,
    embeddings: &[Option<Embedding>],
    float: Option<&Vec<Option<Embedding>>>,
    median_ms: f64,
) -> Result<Compared, ParityError> {
    let known: BTreeMap<&Picture, &Embedding> =
        job.pictures.iter().zip(embeddings).filter_map(|(p, e)| Some((p, e.as_ref()?))).collect();
    let scores = |pairs: &Pairs| -> Vec<(f32, bool)> {
        pairs
            .pairs
            .iter()
            .map(|pair| match (known.get(&pair.first), known.get(&pair.second)) {
                (Some(a), Some(b)) => (a.similarity(b).0, pair.same()),
                _ => (NOT_FOUND, pair.same()),
            })
            .collect()
    };
    let fixed = match job.calibrate {
        Some(pairs) => Some(Roc::new(&scores(pairs)).ok_or(ParityError::TooFew)?.best_threshold()),
        None => None,
    };
    let measured = scores(job.pairs);
    let folds: Vec<usize> = job.pairs.pairs.iter().map(|p| p.fold).collect();
    let accuracy =
        roc::fold_accuracy(&measured, &folds, job.pairs.folds, fixed).ok_or(ParityError::TooFew)?.mean;
    let faces: Vec<(&str, &Embedding)> = pictures_of(job.pairs)
        .into_iter()
        .filter_map(|p| Some((p.person.as_str(), *known.get(p)?)))
        .collect();
    let all = AllPairs::of(&faces).ok_or(ParityError::TooFew)?;
    let agreement = float.map(|float| {
        let mut cosines: Vec<f64> = float
            .iter()
            .zip(embeddings)
            .filter_map(|(a, b)| Some(f64::from(a.as_ref()?.similarity(b.as_ref()?).0)))
            .collect();
        cosines.sort_unstable_by(f64::total_cmp);
        Agreement {
            mean: cosines.iter().sum::<f64>() / cosines.len().max(1) as f64,
            first_percentile: cosines.get(cosines.len() / 100).copied().unwrap_or(f64::NAN),
        }
    });
    Ok(Compared {
        name: name.into(),
        bytes,
        median_ms,
        agreement,
        accuracy,
        tar_at_far_1e2: Roc::new(&measured).ok_or(ParityError::TooFew)?.at_far(1e-2).tar,
        // One rate was asked for.
        all_pairs_1e3: all.tmr_at(&[1e-3], 1)[0],
        all,
    })
}

fn in_libtorch(run: &RunData, chips: &[Option<Chip>]) -> Result<Vec<Option<Embedding>>, ParityError> {
    let _no_grad = tch::no_grad_guard();
    let there: Vec<usize> = (0..chips.len()).filter(|&i| chips[i].is_some()).collect();
    let mut out = vec![None; chips.len()];
    for part in there.chunks(32) {
        let pixels: Vec<u8> =
            part.iter().filter_map(|&i| chips[i].as_ref()).flat_map(|c| c.iter().copied()).collect();
        let y = run.net.forward(&faces::chips(&pixels), Mode::EVAL).contiguous();
        for (row, &index) in part.iter().enumerate() {
            let mut values = [0.0_f32; DIM];
            y.get(row as i64).copy_data(&mut values, DIM);
            out[index] = Some(Embedding::from_raw(&values).map_err(|_| ParityError::NotFinite)?);
        }
    }
    Ok(out)
}

/// Median time of libtorch and of each embedder on one thread, each in turn on the same chip.
fn interleaved(
    run: &RunData,
    embedders: &mut [Embedder],
    chips: &[Option<Chip>],
) -> Result<Vec<f64>, ParityError> {
    let _no_grad = tch::no_grad_guard();
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let mut times = vec![Vec::new(); embedders.len() + 1];
    for (round, chip) in chips.iter().flatten().cycle().take(ROUNDS + 1).enumerate() {
        let input = faces::chips(&chip[..]);
        let begun = Instant::now();
        let _ = run.net.forward(&input, Mode::EVAL);
        let mut now = vec![begun.elapsed().as_secs_f64() * 1e3];
        for embedder in &mut *embedders {
            let begun = Instant::now();
            embedder.embed(chip)?;
            now.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        if round > 0 {
            times.iter_mut().zip(now).for_each(|(all, t)| all.push(t));
        }
    }
    tch::set_num_threads(threads);
    Ok(times
        .into_iter()
        .map(|mut all| {
            all.sort_unstable_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
        })
        .collect())
}

type LayerTable = (Vec<String>, Vec<LayerNoise>);

/// Every layer of every form in tract against the folded net in libtorch. The integer form is equalized: its layers are compared with the
/// equalized float net, whose answers are the same.
fn layer_noise(
    subject: &Subject<'_>,
    forms: &[(&str, LayerForm<'_>)],
    chips: &[Option<Chip>],
) -> Result<LayerTable, ParityError> {
    let _no_grad = tch::no_grad_guard();
    let some: Vec<&Chip> = chips.iter().flatten().take(LAYER_FACES).collect();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for (name, form) in forms {
        let reference = match form {
            LayerForm::Float(net, _) => (*net).clone(),
            LayerForm::Integer(quantized) => equalized(subject.net, quantized),
        };
        let tensors = reference.tensors();
        let bytes = write(*form, true)?;
        let side = CHIP_PX as usize;
        let mut network = Network::from_bytes(Path::new(&format!("{name}.onnx")), &bytes, side, side)?;
        let mut powers = vec![(0.0_f64, 0.0_f64); reference.layers.len()];
        for chip in &some {
            let input = faces::chips(&chip[..]);
            input.flatten(0, -1).copy_data(network.input_mut()?, 3 * side * side);
            let outputs = network.run()?;
            let values = reference.values(&tensors, &input);
            // The embedding is the first output, the layers before it follow in order.
            let order = outputs[1..].iter().chain([&outputs[0]]);
            for ((power, value), output) in powers.iter_mut().zip(&values[1..]).zip(order) {
                let expected = value.contiguous().flatten(0, -1);
                let actual = output
                    .to_plain_array_view::<f32>()
                    .map_err(|e| ParityError::Tract { reason: format!("{e:#}") })?;
                let actual: Vec<f32> = actual.iter().copied().collect();
                let difference = &expected - Tensor::from_slice(&actual);
                let square = |t: &Tensor| t.square().sum(tch::Kind::Double).double_value(&[]);
                power.0 += square(&expected);
                power.1 += square(&difference);
            }
        }
        columns.push(powers.into_iter().map(|(s, n)| 10.0 * (s / n.max(s * 1e-15)).log10()).collect());
    }
    let layers = subject
        .net
        .layers
        .iter()
        .enumerate()
        .map(|(i, layer)| LayerNoise {
            name: layer.name.clone(),
            integer: subject.quantized.is_some_and(|q| q.plan.integer[i]),
            signal_to_noise_db: columns.iter().map(|c| c[i]).collect(),
        })
        .collect();
    Ok((forms.iter().map(|(name, _)| (*name).to_owned()).collect(), layers))
}

/// The float net with its channels scaled as the quantized net's are, so that layers can be compared: the factor of a channel is the
/// one that fits its values best.
fn equalized(net: &Net, quantized: &Quantized) -> Net {
    // Equalization is deterministic: when the quantized net was made from this one without fine-tuning, doing it again gives
    // its float weights up to the biases. A fine-tuned net has moved; its own weights are the reference then.
    let mut again = net.clone();
    crate::quantize::equalize::equalize(&mut again, crate::quantize::EQUALIZE_ROUNDS);
    let same = |a: &Net, b: &Net| {
        a.layers.iter().zip(&b.layers).all(|(a, b)| {
            a.dense.values.iter().zip(&b.dense.values).all(|(x, y)| (x - y).abs() <= 1e-3 * y.abs().max(1e-4))
        })
    };
    if same(&again, &quantized.net) {
        again
    } else if same(net, &quantized.net) {
        net.clone()
    } else {
        quantized.net.clone()
    }
}

fn verdict(subject: &Subject<'_>, rows: &[Compared], layers: &[LayerNoise]) -> Vec<String> {
    let find = |name: &str| rows.iter().find(|r| r.name == name);
    let (Some(float), Some(int8)) = (find("float"), find("int8")) else {
        return vec!["There is no integer form: make it with `facelatch quantize`.".into()];
    };
    let accuracy = (float.accuracy - int8.accuracy) * 100.0;
    let tar = (float.all_pairs_1e3.value - int8.all_pairs_1e3.value) * 100.0;
    let mut lines = vec![format!(
        "int8 loses {accuracy:.2} points on the pairs (at most {MOST_ACCURACY_LOST}) and {tar:.2} in TAR at FAR 1e-3 (at most \
         {MOST_TAR_LOST})."
    )];
    if accuracy > MOST_ACCURACY_LOST || tar > MOST_TAR_LOST {
        // The layer at which the most signal is lost at once.
        let noise = |i: usize| layers[i].signal_to_noise_db.last().copied().unwrap_or(f64::INFINITY);
        let fall = |i: usize| {
            let from = subject.net.layers[i].from;
            (if from == 0 { 60.0 } else { noise(from - 1) }) - noise(i)
        };
        let worst =
            (0..layers.len()).filter(|&i| layers[i].integer).max_by(|&a, &b| fall(a).total_cmp(&fall(b)));
        if let Some(worst) = worst {
            lines.push(format!(
                "Most is lost in {}: {:.1} dB below its input. Leave it float (facelatch quantize --float {}), or fine-tune.",
                layers[worst].name,
                fall(worst),
                layers[worst].name
            ));
        }
    }
    lines
}

/// A manifest entry for bytes written into `dir`: what the door's loader wants.
fn entry(name: &str, bytes: &[u8], dir: &Path) -> Result<ManifestEntry, ParityError> {
    use facelatch_shared::vision::contract::{
        Alignment, ChannelOrder, Family, FileHash, InputContract, ModelKind, Source,
    };
    let file = format!("{name}.onnx");
    std::fs::write(dir.join(&file), bytes).map_err(ParityError::Folder)?;
    let sha256 = FileHash::of(bytes);
    Ok(ManifestEntry {
        name: name.into(),
        kind: ModelKind::Embedder,
        family: Family::Embedding,
        file,
        sha256,
        licence: "LicenseRef-Unpublished".into(),
        lineage: None,
        default_threshold: None,
        threshold_note: None,
        source: Source {
            package: "facelatch".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            path: name.into(),
            sha256,
        },
        contract: InputContract {
            width_px: CHIP_PX as usize,
            height_px: CHIP_PX as usize,
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            scale: [1.0; 3],
            alignment: Some(Alignment::ARCFACE_112),
            pad_multiple_px: None,
        },
        thresholds: None,
        measured: None,
    })
}

/// A folder that goes away with the value.
struct Folder(std::path::PathBuf);

impl Folder {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind in the system's temporary folder at worst.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile_dir() -> Result<Folder, ParityError> {
    let path = std::env::temp_dir().join(format!("facelatch-parity-{}", std::process::id()));
    std::fs::create_dir_all(&path).map_err(ParityError::Folder)?;
    Ok(Folder(path))
}

const _: () = assert!(CHIP_BYTES == 3 * (CHIP_PX * CHIP_PX) as usize);

/// Why forms could not be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParityError {
    /// A form.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The door's runtime.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// tract.
    #[error("tract: {reason}")]
    Tract {
        /// What it says.
        reason: String,
    },
    /// The net gives no vector.
    #[error("the net gives zeros or numbers that are not finite for a face: its weights are damaged")]
    NotFinite,
    /// A folder for the forms.
    #[error("cannot write the forms into the temporary folder: {0}")]
    Folder(std::io::Error),
    /// Too few pairs.
    #[error("the pairs are too few: every fold needs pairs of one person and of two")]
    TooFew,
}
