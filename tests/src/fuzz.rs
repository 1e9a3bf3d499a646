//! What takes bytes from outside, one target each, with the properties that must hold for any bytes at all.
//!
//! `tests/tests/hostile_bytes.rs` runs every target on seeds and some thousands of changed seeds at each `make test`; `make fuzz` runs the same
//! functions under libFuzzer, guided by coverage (`tests/fuzz`). Inputs that once failed lie in `tests/fuzz/found` and are replayed.

use std::path::Path;

use facelatch_device::camera::{PixelFormat, RawFrame};
use facelatch_device::config::Config;
use facelatch_device::decode::{Decoder, encode_mjpeg, encode_yuyv};
use facelatch_device::event_log::EventLog;
use facelatch_device::store::MemStore;
use facelatch_shared::access::Rights;
use facelatch_shared::bundle::{
    Accepted, BundleError, Draft, Engineer, FORMAT, Header, Manifest, Platform, Root, SecretKey, SectionKind,
    SelfTest, SignedRoot, Sink, Stream, Trial, Trust, Version, split,
};
use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
use facelatch_shared::event::EventKind;
use facelatch_shared::frame::RgbView;
use facelatch_shared::gallery::{Change, CountingEntropy, Key, Ledger};
use facelatch_shared::journal;
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::protocol::{self, Request, Response};
use facelatch_shared::score::Threshold;
use facelatch_shared::time::{Millis, UnixMs};
use facelatch_shared::transfer::{
    Opener, PREFIX_BYTES, PersonData, SIGNATURE_BYTES, Sealer, TemplateData, TransferError, TransferRequest,
    start_length,
};
use facelatch_shared::vision::Manifest as ModelList;
use facelatch_shared::vision::runtime::Network;

/// One reader of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the libFuzzer program, and of the folder with its inputs.
    pub name: &'static str,
    /// Reads the bytes; panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Well-formed inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "protocol", run: protocol, seeds: protocol_seeds },
    Target { name: "bundle", run: bundle, seeds: bundle_seeds },
    Target { name: "gallery", run: gallery, seeds: gallery_seeds },
    Target { name: "events", run: events, seeds: event_seeds },
    Target { name: "model", run: model, seeds: model_seeds },
    Target { name: "settings", run: settings, seeds: setting_seeds },
    Target { name: "picture", run: picture, seeds: picture_seeds },
    Target { name: "sealed", run: sealed, seeds: sealed_seeds },
];

/// The target called `name`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

/// What is understood is written back as something that is understood the same way.
fn protocol(bytes: &[u8]) {
    if let Ok(request) = protocol::decode::<Request>(bytes) {
        let again = protocol::encode(&request).unwrap_or_else(|e| panic!("{request:?} is not encoded: {e}"));
        assert_eq!(protocol::decode::<Request>(&again).as_ref(), Ok(&request));
    }
    if let Ok(response) = protocol::decode::<Response>(bytes)
        && let Ok(again) = protocol::encode(&response)
    {
        assert!(protocol::decode::<Response>(&again).is_ok(), "{response:?}");
    }
}

fn protocol_seeds() -> Vec<Vec<u8>> {
    let name = || name("Ada Lovelace");
    let requests = [
        Request::Hello { version: 1 },
        Request::Status,
        Request::ListPeople { from: SubjectId(3) },
        Request::Enrol { name: name() },
        Request::Rename { id: SubjectId(7), name: name() },
        Request::ErasureReceipt { id: SubjectId(7) },
        Request::Transfer(TransferRequest::ImportPerson(Box::new(person(1)))),
        Request::Transfer(TransferRequest::BeginImport {
            from: secret(3).public(),
            number: 1,
            binding: BINDING,
        }),
    ];
    requests.iter().filter_map(|request| protocol::encode(request).ok()).collect()
}

/// A gallery from another door: what is not, byte for byte, what that door signed for this one gives nothing.
fn sealed(bytes: &[u8]) {
    fn read(mut file: &[u8]) -> Result<Vec<PersonData>, TransferError> {
        let mut take = |count: usize| -> Result<&[u8], TransferError> {
            let (taken, rest) = file.split_at_checked(count).ok_or(TransferError::Changed)?;
            file = rest;
            Ok(taken)
        };
        let prefix = take(PREFIX_BYTES)?;
        let length = start_length(prefix.try_into().map_err(|_| TransferError::NotOne)?)?;
        let start = [prefix, take(length - PREFIX_BYTES)?].concat();
        let mut opener = Opener::begin(&start, &secret(4), secret(3).public())?;
        let mut people = Vec::new();
        while opener.left() > 0 {
            let length: [u8; 4] = take(4)?.try_into().map_err(|_| TransferError::Changed)?;
            people.push(opener.person(take(u32::from_le_bytes(length) as usize)?)?);
        }
        opener.finish(take(SIGNATURE_BYTES)?)?;
        Ok(people)
    }
    if let Ok(people) = read(bytes) {
        let whole = sealed_seeds().into_iter().find(|seed| bytes.starts_with(seed));
        assert!(whole.is_some(), "{} people of a file that nobody signed", people.len());
    }
}

fn sealed_seeds() -> Vec<Vec<u8>> {
    let seal = |people: u32| {
        let told = (5, NOW, BINDING, people);
        let begun = Sealer::begin(secret(3), secret(4).public(), told, &mut CountingEntropy(7));
        let (mut sealer, mut file) = begun.ok()?;
        for number in 1..=people {
            file.extend(sealer.person(&person(number)).ok()?);
        }
        file.extend(sealer.finish().ok()?);
        Some(file)
    };
    (0..3).filter_map(seal).collect()
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn person(number: u32) -> PersonData {
    let codes = vec![number as i8; DIM];
    PersonData {
        id: SubjectId(number),
        name: name("Ada Lovelace"),
        state: PersonState::Active,
        enrolled_at: NOW,
        rights: Rights::default(),
        templates: vec![TemplateData { binding: BINDING, taken_at: NOW, codes }],
        chips: vec![vec![7; 40]],
    }
}

/// Whatever the bytes: nothing is handed on that the signed manifest does not name, and a bundle is complete only when every chunk came.
fn bundle(bytes: &[u8]) {
    struct Counting {
        accepted: Option<Accepted>,
        bytes: u64,
    }
    impl Sink for Counting {
        type Error = BundleError;
        fn header(&mut self, accepted: &Accepted) -> Result<(), BundleError> {
            assert!(self.accepted.is_none(), "two headers");
            self.accepted = Some(accepted.clone());
            Ok(())
        }
        fn chunk(&mut self, section: u16, chunk: u32, bytes: &[u8]) -> Result<(), BundleError> {
            let accepted = self.accepted.as_ref().unwrap_or_else(|| panic!("a chunk before the header"));
            self.bytes += bytes.len() as u64;
            accepted.manifest.check_chunk(section, chunk, bytes)
        }
    }
    let trust = trust();
    let mut sink = Counting { accepted: None, bytes: 0 };
    let mut stream = Stream::new(&trust, PLATFORM);
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let fed = bytes.chunks(piece).try_for_each(|piece| stream.feed(piece, &mut sink));
    if fed.and_then(|()| stream.finish()).is_ok() {
        let accepted = sink.accepted.unwrap_or_else(|| panic!("complete without a header"));
        assert_eq!(sink.bytes, accepted.manifest.content_bytes());
    }
    // The parts behind the signatures, which hardly any changed input would reach.
    let _ = (split(bytes).is_ok(), Header::parse(bytes).is_ok(), SelfTest::parse(bytes).is_ok());
    if let Ok(manifest) = Manifest::parse(bytes) {
        let _ = (manifest.fits(&PLATFORM).is_ok(), manifest.content_bytes());
    }
}

fn bundle_seeds() -> Vec<Vec<u8>> {
    let manifest = Manifest {
        format: FORMAT,
        name: heapless_string("night shift"),
        counter: 5,
        created: NOW,
        expires: None,
        min_firmware: Version(0, 1, 0),
        boards: vec![],
        contracts: vec![],
        detector: heapless_string("yunet"),
        embedder: heapless_string("compact"),
        binding: ModelBinding([7; 16]),
        compatible: vec![],
        threshold: Threshold(0.5),
        trial: Trial { seconds: 600, max_starts: 3, max_p95_us: 200_000, max_rejection_rise: 20 },
        sections: vec![],
    };
    let files = [
        (SectionKind::Models, "manifest.toml", &b"[[models]]"[..]),
        (SectionKind::Network, "compact.onnx", &[9; 300][..]),
        (SectionKind::SelfTest, "selftest.bin", b"probes"),
    ];
    let Ok(mut draft) = Draft::new(manifest, &files, vec![root()]) else { return vec![] };
    draft.sign(&SecretKey::from_bytes([2; 32]));
    let mut seeds = vec![draft.header().manifest.clone()];
    seeds.extend(draft.to_bytes());
    seeds
}

/// A journal of any bytes gives a gallery, or a typed error; what it gives survives being written again.
fn gallery(bytes: &[u8]) {
    for journal in [bytes.to_vec(), framed(bytes)] {
        let Ok((mut ledger, _)) = Ledger::replay(KEY, &journal) else { continue };
        let people: Vec<_> = ledger.people().collect();
        let written = ledger.compact(&mut CountingEntropy(1)).unwrap_or_else(|e| panic!("compaction: {e}"));
        let (again, recovery) =
            Ledger::replay(KEY, &written).unwrap_or_else(|e| panic!("what was written is not read: {e}"));
        assert!(!recovery.is_damage(), "{recovery:?}");
        assert_eq!(again.people().collect::<Vec<_>>(), people);
    }
}

fn gallery_seeds() -> Vec<Vec<u8>> {
    let mut entropy = CountingEntropy(0);
    let Ok((mut ledger, mut bytes)) = Ledger::create(KEY, &mut entropy) else { return vec![] };
    let changes = [
        Change::Enrol {
            name: name("Ada"),
            templates: vec![template(1), template(2)],
            binding: ModelBinding([7; 16]),
            rights: Rights::default(),
        },
        Change::Enrol {
            name: name("Bea"),
            templates: vec![template(3)],
            binding: ModelBinding([7; 16]),
            rights: Rights::default(),
        },
        Change::Rename(SubjectId(1), name("Ada Lovelace")),
        Change::Erase(SubjectId(2)),
    ];
    let mut seeds = vec![bytes.clone()];
    for change in changes {
        if let Ok(prepared) = ledger.prepare(change, NOW, &mut entropy) {
            bytes.extend(&prepared.bytes);
            ledger.commit(prepared);
            seeds.push(bytes.clone());
        }
    }
    seeds
}

/// A log of any bytes opens; an event that is recorded then can be read, and the log opens again with it.
fn events(bytes: &[u8]) {
    for log in [bytes.to_vec(), framed(bytes)] {
        let store = MemStore::holding(log);
        let Ok((mut log, _)) = EventLog::open(Box::new(store.clone()), &KEY, 1 << 20) else { continue };
        assert!(log.record(NOW, Millis(1), EventKind::ExitRequested), "a good store refuses an event");
        let (events, _) = log.read().unwrap_or_else(|e| panic!("the log is not read: {e}"));
        assert!(events.last().is_some_and(|event| event.kind == EventKind::ExitRequested));
        let again = EventLog::open(Box::new(MemStore::holding(store.bytes())), &KEY, 1 << 20);
        assert!(again.is_ok());
    }
}

fn event_seeds() -> Vec<Vec<u8>> {
    let store = MemStore::holding(vec![]);
    let Ok((mut log, _)) = EventLog::open(Box::new(store.clone()), &KEY, 1 << 20) else { return vec![] };
    let mut seeds = vec![];
    for at in 0..3 {
        log.record(UnixMs(NOW.0 + at), Millis(at as u64), EventKind::ExitRequested);
        seeds.push(store.bytes());
    }
    seeds
}

/// A model file of any bytes loads or is refused; in both cases in bounded time and memory, which the fuzzer's limits watch.
fn model(bytes: &[u8]) {
    let _ = Network::from_bytes(Path::new("fuzzed.onnx"), bytes, 32, 32);
}

/// A small convolution, as the smallest file that loads.
fn model_seeds() -> Vec<Vec<u8>> {
    use prost::Message as _;
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto, attribute_proto, tensor_shape_proto, type_proto,
    };
    let value = |name: &str, dims: &[i64]| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto {
                    dim: dims
                        .iter()
                        .map(|&d| tensor_shape_proto::Dimension {
                            value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
                            ..Default::default()
                        })
                        .collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let strides = AttributeProto {
        name: "strides".into(),
        r#type: attribute_proto::AttributeType::Ints as i32,
        ints: vec![4, 4],
        ..Default::default()
    };
    let node = |op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: op.into(),
        name: op.to_lowercase(),
        input: inputs.iter().map(|&i| i.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    };
    let weights = TensorProto {
        name: "w".into(),
        dims: vec![2, 3, 3, 3],
        data_type: 1,
        raw_data: (0..54_u8).flat_map(|v| (f32::from(v) / 54.0).to_le_bytes()).collect(),
        ..Default::default()
    };
    let graph = GraphProto {
        name: "small".into(),
        node: vec![
            node("Conv", &["x", "w"], "c", vec![strides]),
            node("Relu", &["c"], "r", vec![]),
            node("GlobalAveragePool", &["r"], "y", vec![]),
        ],
        initializer: vec![weights],
        input: vec![value("x", &[1, 3, 32, 32])],
        output: vec![value("y", &[1, 2, 1, 1])],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
        graph: Some(graph),
        ..Default::default()
    };
    vec![model.encode_to_vec()]
}

/// Configurations and model lists of any text are read or refused with a reason.
fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(reason) = Config::parse(text) {
        assert!(!reason.trim().is_empty());
    }
    let _ = ModelList::parse(text, Path::new("manifest.toml"));
}

fn setting_seeds() -> Vec<Vec<u8>> {
    let own = include_str!("../../models/manifest.toml");
    let door = "[door]\nname = \"Door\"\n[lock]\nkind = \"none\"\n[decision]\nfalse_accepts = 1e-4\nwindow = 5\nagree = 3\n";
    vec![own.into(), door.into()]
}

/// A camera's frame of any bytes, size and format is a picture of the announced size or an error. The first three bytes choose format and size.
fn picture(bytes: &[u8]) {
    let [format, width, height, ref rest @ ..] = *bytes else { return };
    let formats =
        [PixelFormat::Yuyv, PixelFormat::Mjpeg, PixelFormat::Nv12, PixelFormat::Grey, PixelFormat::Rgb24];
    let (width_px, height_px) = (usize::from(width) * 4, usize::from(height) * 4);
    let raw = RawFrame {
        format: Some(formats[usize::from(format) % formats.len()]),
        width_px,
        height_px,
        bytes: rest.to_vec(),
        ..RawFrame::default()
    };
    let mut decoder = Decoder::new();
    if let Ok(view) = decoder.decode(&raw) {
        assert_eq!(view.data().len(), view.width_px() * view.height_px() * 3);
        assert!(view.width_px() > 0 && view.height_px() > 0);
    }
}

fn picture_seeds() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..32 * 24 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let Ok(view) = RgbView::new(&pixels, 32, 24) else { return vec![] };
    let (mut yuyv, mut jpeg) = (Vec::new(), Vec::new());
    encode_yuyv(&view, &mut yuyv);
    let jpeg = if encode_mjpeg(&view, 80, &mut jpeg).is_ok() { jpeg } else { vec![] };
    [(0, yuyv), (1, jpeg), (4, pixels.clone())]
        .into_iter()
        .map(|(format, bytes)| [vec![format, 8, 6], bytes].concat())
        .collect()
}

/// The same journal with every frame's checksum put right, so that changed payloads are read too.
fn framed(bytes: &[u8]) -> Vec<u8> {
    const MARK: [u8; 2] = [0xA7, 0xF1];
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == MARK) {
        let [_, _, low, high, body @ ..] = &rest[at..] else { break };
        let Some((seq, body)) = body.split_first_chunk::<8>() else { break };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(journal::MAX_PAYLOAD).min(body.len());
        journal::write_frame(&mut out, u64::from_le_bytes(*seq), &body[..length]);
        rest = &body[length..];
    }
    out
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn heapless_string<const N: usize>(text: &str) -> heapless::String<N> {
    heapless::String::try_from(text).unwrap_or_default()
}

fn template(seed: usize) -> Template {
    let raw: Vec<f32> = (0..DIM).map(|i| ((i * seed) % 17) as f32 - 8.0).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap_or_else(|e| panic!("{e}")))
}

fn root() -> SignedRoot {
    let root = Root {
        format: FORMAT,
        version: 1,
        created: NOW,
        expires: None,
        keys: vec![SecretKey::from_bytes([1; 32]).public()],
        threshold: 1,
        engineers: vec![Engineer {
            key: SecretKey::from_bytes([2; 32]).public(),
            name: heapless_string("Eve"),
        }],
        engineer_threshold: 1,
        revoked: vec![],
    };
    let mut signed = SignedRoot::unsigned(&root).unwrap_or_else(|e| panic!("the root document: {e}"));
    signed.sign(&SecretKey::from_bytes([1; 32]));
    signed
}

fn trust() -> Trust {
    Trust::begin(root()).unwrap_or_else(|e| panic!("the root document: {e}"))
}

const BINDING: ModelBinding = ModelBinding([3; 16]);
const NOW: UnixMs = UnixMs(1_800_000_000_000);
const KEY: Key = Key::from_bytes([5; 32]);
const PLATFORM: Platform<'static> = Platform {
    firmware: Version(0, 1, 0),
    board: "any",
    contracts: &[],
    counter_floor: 0,
    system: None,
    now: NOW,
};
