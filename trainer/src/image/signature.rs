//! What an image is, signed: a small file beside it, `door.img.sig`.
//!
//! ```text
//! FLIMAGE1\n | postcard { document: postcard ImageDocument, signatures }
//! ```
//!
//! Signed by the engineers whom a root document names, as bundles of models are.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{Domain, SecretKey, Signature, SignedRoot, Trust};
use facelatch_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::ImageError;
use super::disk::sha256;
use crate::bundle::keyfile::write_whole;

/// What is signed. The order of fields is the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// 1.
    pub format: u16,
    /// [`Board::name`](super::Board::name).
    pub board: String,
    /// The firmware's version.
    pub version: String,
    /// The image's length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
struct SignedImage {
    document: Vec<u8>,
    signatures: Vec<Signature>,
}

/// Where an image's signature lies: beside it, `.sig` appended.
#[must_use]
pub fn beside(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Signs an image, in the place of whatever signature is there.
///
/// # Errors
/// [`ImageError::Io`].
pub fn sign(image: &Path, board: &str, version: &str, keys: &[SecretKey]) -> Result<(), ImageError> {
    let mut file = File::open(image).map_err(ImageError::io(image))?;
    let bytes = file.metadata().map_err(ImageError::io(image))?.len();
    let document = ImageDocument {
        format: FORMAT,
        board: board.into(),
        version: version.into(),
        bytes,
        sha256: sha256(&mut file, image)?,
    };
    let document = encode(&document)?;
    let signatures = keys.iter().map(|key| key.sign(Domain::Image, &document)).collect();
    let body = encode(&SignedImage { document, signatures })?;
    let path = beside(image);
    write_whole(&path, &[MAGIC, &body].concat()).map_err(ImageError::io(path))
}

/// Checks an image against its signature and `root`: who signed it, its length, every byte.
///
/// # Errors
/// [`ImageError::Refused`] with what is wrong.
pub fn verify(image: &Path, root: SignedRoot, now: UnixMs) -> Result<ImageDocument, ImageError> {
    let refused = |what: String| ImageError::Refused { what };
    let path = beside(image);
    let mut body = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut body))
        .map_err(|e| refused(format!("{} has no signature: {}: {e}", image.display(), path.display())))?;
    let malformed = || ImageError::refused(format!("{} is no signature of an image", path.display()));
    let body = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let signed: SignedImage = decode(body).ok_or_else(malformed)?;
    let trust = Trust::begin(root).map_err(|e| refused(format!("the root document: {e}")))?;
    trust
        .check(Domain::Image, &signed.document, &signed.signatures, now)
        .map_err(|e| refused(format!("{}: {e}", path.display())))?;
    let document: ImageDocument =
        decode(&signed.document).filter(|d: &ImageDocument| d.format == FORMAT).ok_or_else(malformed)?;
    let mut file = File::open(image).map_err(ImageError::io(image))?;
    let have = file.metadata().map_err(ImageError::io(image))?.len();
    if have != document.bytes {
        return Err(refused(format!("{} has {have} bytes, {} were signed", image.display(), document.bytes)));
    }
    if sha256(&mut file, image)? != document.sha256 {
        return Err(refused(format!("{} is not what was signed: its bytes were changed", image.display())));
    }
    Ok(document)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ImageError> {
    postcard::to_stdvec(value).map_err(|e| ImageError::input(format!("cannot be encoded: {e}")))
}

/// The value, when it fills the bytes.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

const FORMAT: u16 = 1;
const MAGIC: &[u8] = b"FLIMAGE1\n";
/// More than sixteen signatures take.
const MAX_BYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::bundle::{Engineer, Root};

    fn root(key: &SecretKey, engineer: &SecretKey) -> SignedRoot {
        let root = Root {
            format: facelatch_shared::bundle::FORMAT,
            version: 1,
            created: UnixMs(0),
            expires: Some(UnixMs(1_000)),
            keys: vec![key.public()],
            threshold: 1,
            engineers: vec![Engineer {
                key: engineer.public(),
                name: heapless::String::try_from("Eve").unwrap(),
            }],
            engineer_threshold: 1,
            revoked: Vec::new(),
        };
        let mut signed = SignedRoot::unsigned(&root).unwrap();
        signed.sign(key);
        signed
    }

    #[test]
    fn only_what_an_engineer_signed_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("door.img");
        std::fs::write(&image, [7; 5_000]).unwrap();
        let [key, eve, mallory] = [1, 2, 3].map(|seed| SecretKey::from_bytes([seed; 32]));
        let verdict = |at| verify(&image, root(&key, &eve), UnixMs(at)).map_err(|e| e.to_string());
        assert!(verdict(0).unwrap_err().contains("has no signature"));
        sign(&image, "generic-arm64", "0.1.0", std::slice::from_ref(&mallory)).unwrap();
        assert!(verdict(0).unwrap_err().contains("door.img.sig: "), "signed by a stranger");
        sign(&image, "generic-arm64", "0.1.0", std::slice::from_ref(&eve)).unwrap();
        let document = verdict(0).unwrap();
        assert_eq!((document.board.as_str(), document.bytes), ("generic-arm64", 5_000));
        assert!(verdict(1_000).is_err(), "the root document has expired");
        let mut other = vec![7; 5_000];
        other[4_000] = 8;
        std::fs::write(&image, &other).unwrap();
        assert!(verdict(0).unwrap_err().ends_with("is not what was signed: its bytes were changed"));
        std::fs::write(&image, &other[..4_999]).unwrap();
        assert!(verdict(0).unwrap_err().ends_with("has 4999 bytes, 5000 were signed"));
        std::fs::write(beside(&image), b"FLIMAGE1\n\xff\xff").unwrap();
        assert!(verdict(0).unwrap_err().ends_with("is no signature of an image"));
    }

    #[test]
    fn a_signature_for_another_purpose_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("door.img");
        std::fs::write(&image, [7; 64]).unwrap();
        let [key, eve] = [1, 2].map(|seed| SecretKey::from_bytes([seed; 32]));
        sign(&image, "generic-arm64", "0.1.0", std::slice::from_ref(&eve)).unwrap();
        let bytes = std::fs::read(beside(&image)).unwrap();
        let mut signed: SignedImage = decode(&bytes[MAGIC.len()..]).unwrap();
        signed.signatures = vec![eve.sign(Domain::Manifest, &signed.document)];
        std::fs::write(beside(&image), [MAGIC, &encode(&signed).unwrap()].concat()).unwrap();
        assert!(verify(&image, root(&key, &eve), UnixMs(0)).is_err());
    }
}
