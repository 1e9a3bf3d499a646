//! Making models ready beside a door that goes on deciding: load, self-test, templates for everyone whose chips were kept, and whether the new
//! models know the people. On a thread of its own, which leaves time to the threads that decide.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use facelatch_shared::bundle::{BundleId, Manifest, SelfTest};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::person::SubjectId;
use facelatch_shared::vision::Eyes;

use super::carry::{Plan, embed_all};
use super::live::SessionHandle;
use super::models::{ModelsError, Proof, bundle_threshold, load_bundle, prove};
use crate::access::ThresholdSource;
use crate::clock::Clock;
use crate::config::Config;

/// A bundle that was staged.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Its name.
    pub id: BundleId,
    /// What it says.
    pub manifest: Manifest,
    /// Where its files lie.
    pub folder: PathBuf,
    /// The section of the self-test.
    pub self_test: Vec<u8>,
    /// Templates of these models are kept beside the bundle's own.
    pub keep: Vec<ModelBinding>,
}

/// A bundle that may be activated.
#[derive(Debug)]
pub struct Prepared {
    /// Ready to look.
    pub eyes: Eyes,
    /// What it says.
    pub manifest: Manifest,
    /// Where its threshold comes from.
    pub threshold: ThresholdSource,
    /// What the self-test showed.
    pub proof: Proof,
    /// What becomes of the people.
    pub plan: Plan,
}

/// How far a preparation is.
#[derive(Clone, Debug, Default)]
pub struct Steps(Arc<(AtomicU32, AtomicU32)>);

impl Steps {
    /// Chips that were embedded, and how many there are.
    #[must_use]
    pub fn get(&self) -> (u32, u32) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }

    fn more(&self, count: usize) {
        self.0.1.fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// One more, begun at `start`. Pauses as long as it took: the threads that decide have at least half of the only core.
    fn one(&self, start: Instant) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(start.elapsed().min(LONGEST_PAUSE));
    }
}

/// Work on a thread of its own.
#[derive(Debug)]
pub struct Work<T> {
    thread: JoinHandle<Result<T, ModelsError>>,
    /// How far it is.
    pub steps: Steps,
}

impl<T: Send + 'static> Work<T> {
    /// Begins `work`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        work: impl FnOnce(&Steps) -> Result<T, ModelsError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let steps = Steps::default();
        let own = steps.clone();
        let thread = std::thread::Builder::new().name("prepare".into()).spawn(move || work(&own))?;
        Ok(Self { thread, steps })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end. A panic counts as an end of the door: nothing was prepared.
    ///
    /// # Errors
    /// What the work said.
    pub fn finish(self) -> Result<T, ModelsError> {
        self.thread.join().unwrap_or(Err(ModelsError::Ended))
    }
}

/// Makes a staged bundle ready.
///
/// # Errors
/// [`ModelsError`]: why it does not fit. Templates that were made by then mean nothing, and are forgotten with the next bundle.
pub fn bundle(
    config: &Config,
    staged: Staged,
    session: &SessionHandle,
    clock: &dyn Clock,
    steps: &Steps,
) -> Result<Prepared, ModelsError> {
    let Staged { manifest, folder, self_test, mut keep, .. } = staged;
    let mut eyes = load_bundle(config, &folder, &manifest)?;
    let threshold = bundle_threshold(config, &eyes, &manifest);
    steps.more(SelfTest::parse(&self_test).map_or(0, |test| test.probes.len()));
    let proof = prove(&mut eyes, &manifest, &self_test, |start| steps.one(start))?;
    keep.push(manifest.binding);
    // A person has room for the templates of so many models and no more.
    session.call(move |door| door.people_mut().keep_bindings(&keep)).ok_or(ModelsError::Ended)??;
    carry(&mut eyes, session, clock, steps)?;
    let compatible: Vec<_> = manifest.compatible.iter().map(|older| older.binding).collect();
    let (binding, at) = (manifest.binding, threshold.clone());
    let (plan, old, new) = session
        .call(move |door| {
            let plan = door.people().outcome(binding, &compatible);
            let (present, rule) = (door.binding(), door.rule());
            let old = door.people().cross_check(present, rule.threshold, rule.min_rank_gap);
            let threshold = at.at(door.people().templates_of(binding)).threshold;
            (plan, old, door.people().cross_check(binding, threshold, rule.min_rank_gap))
        })
        .ok_or(ModelsError::Ended)?;
    let (old, new) = (old.rejected_permille(), new.rejected_permille());
    if new > old + u32::from(manifest.trial.max_rejection_rise) {
        return Err(ModelsError::Rejections { new, old });
    }
    Ok(Prepared { eyes, manifest, threshold, proof, plan })
}

/// Makes templates of everyone who has chips and none of these models.
///
/// # Errors
/// [`ModelsError`]: the gallery cannot be written, or the door has ended.
pub fn carry(
    eyes: &mut Eyes,
    session: &SessionHandle,
    clock: &dyn Clock,
    steps: &Steps,
) -> Result<(), ModelsError> {
    let (binding, mut from) = (eyes.binding(), SubjectId(0));
    loop {
        let ask = move |door: &mut crate::door::Door| door.people().chips_to_carry(binding, from, AT_ONCE);
        let people = session.call(ask).ok_or(ModelsError::Ended)?;
        let Some((last, _)) = people.last() else { return Ok(()) };
        from = SubjectId(last.0.saturating_add(1));
        steps.more(people.iter().map(|(_, chips)| chips.len()).sum());
        let carried = embed_all(&people, |chip| {
            let start = Instant::now();
            let embedding = eyes.embed_chip(chip).ok();
            steps.one(start);
            embedding
        });
        let now = clock.unix();
        let store = move |door: &mut crate::door::Door| door.people_mut().carry(binding, &carried, now);
        session.call(store).ok_or(ModelsError::Ended)??;
    }
}

/// People whose chips are in memory at once.
const AT_ONCE: usize = 8;
/// No pause is longer, however slow the board.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
