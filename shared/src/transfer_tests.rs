use super::*;
use crate::gallery::CountingEntropy;

const BINDING: ModelBinding = ModelBinding([3; 16]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn person(n: u32) -> PersonData {
    PersonData {
        id: SubjectId(n),
        name: Name::new("Ada").unwrap(),
        state: PersonState::Active,
        enrolled_at: UnixMs(1),
        rights: Rights::default(),
        templates: [TemplateData { binding: BINDING, taken_at: UnixMs(1), codes: [7; 128].to_vec() }]
            .to_vec(),
        chips: [[9; 300].to_vec()].to_vec(),
    }
}

/// Door 1's gallery for door 2.
fn sealed(people: u32) -> Vec<u8> {
    let told = (5, UnixMs(9), BINDING, people);
    let (mut sealer, mut file) =
        Sealer::begin(key(1), key(2).public(), told, &mut CountingEntropy(1)).unwrap();
    (1..=people).for_each(|n| file.extend(sealer.person(&person(n)).unwrap()));
    file.extend(sealer.finish().unwrap());
    file
}

/// As the program reads it: any error leaves nothing.
fn opened(
    mut file: &[u8],
    own: &SecretKey,
    from: PublicKey,
) -> Result<(Head, Vec<PersonData>), TransferError> {
    fn take<'a>(file: &mut &'a [u8], count: usize) -> Result<&'a [u8], TransferError> {
        let (taken, rest) = file.split_at_checked(count).ok_or(TransferError::Changed)?;
        *file = rest;
        Ok(taken)
    }
    let prefix = file.first_chunk::<PREFIX_BYTES>().ok_or(TransferError::NotOne)?;
    let start = take(&mut file, start_length(prefix)?)?;
    let mut opener = Opener::begin(start, own, from)?;
    let mut people = Vec::new();
    while opener.left() > 0 {
        let length = u32::from_le_bytes(take(&mut file, 4)?.try_into().unwrap()) as usize;
        people.push(opener.person(take(&mut file, length)?)?);
    }
    let head = opener.finish(take(&mut file, SIGNATURE_BYTES)?)?;
    if file.is_empty() { Ok((head, people)) } else { Err(TransferError::Changed) }
}

#[test]
fn the_door_that_it_is_for_reads_it_and_nobody_else() {
    let file = sealed(3);
    let (head, people) = opened(&file, &key(2), key(1).public()).unwrap();
    assert_eq!((head.number, head.binding, head.people), (5, BINDING, 3));
    assert_eq!(people, [person(1), person(2), person(3)]);
    assert!(!file.windows(3).any(|w| w == b"Ada") && !file.windows(16).any(|w| w == [9; 16]));
    // Another door, the sender itself, another sender than the one that was expected.
    for own in [key(3), key(1)] {
        let refused = opened(&file, &own, key(1).public()).unwrap_err();
        assert_eq!(refused, TransferError::OtherDoor { to: key(2).public() });
    }
    let refused = opened(&file, &key(2), key(3).public()).unwrap_err();
    assert_eq!(refused, TransferError::OtherSender { from: key(1).public() });
    assert_eq!(opened(&sealed(0), &key(2), key(1).public()).unwrap().1, []);
}

#[test]
fn every_changed_byte_every_cut_and_every_byte_more_is_refused() {
    let file = sealed(2);
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x20;
        assert!(opened(&changed, &key(2), key(1).public()).is_err(), "byte {at}");
    }
    for length in 0..file.len() {
        assert!(opened(&file[..length], &key(2), key(1).public()).is_err(), "cut at {length}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(opened(&longer, &key(2), key(1).public()).is_err());
}

#[test]
fn a_head_that_names_another_door_opens_nothing_and_a_forger_cannot_sign() {
    // Whoever may read the file puts another receiver's key in: the key agreed on is not theirs.
    let file = sealed(1);
    let at = file.windows(32).position(|w| w == key(2).public().0).unwrap();
    let mut changed = file.clone();
    changed[at..at + 32].copy_from_slice(&key(3).public().0);
    assert_eq!(opened(&changed, &key(3), key(1).public()).unwrap_err(), TransferError::Changed);
    // A stranger seals for door 2 and claims to be door 1.
    let told = (6, UnixMs(9), BINDING, 1);
    let (mut sealer, start) = Sealer::begin(key(9), key(2).public(), told, &mut CountingEntropy(5)).unwrap();
    let mut forged = start;
    forged.extend(sealer.person(&person(1)).unwrap());
    forged.extend(sealer.finish().unwrap());
    let at = forged.windows(32).position(|w| w == key(9).public().0).unwrap();
    forged[at..at + 32].copy_from_slice(&key(1).public().0);
    assert_eq!(opened(&forged, &key(2), key(1).public()).unwrap_err(), TransferError::Changed);
}

#[test]
fn worthless_keys_and_wrong_numbers_are_refused() {
    let told = (5, UnixMs(9), BINDING, 1);
    // The neutral point, and bytes that are no point.
    let neutral = core::array::from_fn(|at| u8::from(at == 0));
    let none = (0..=255).map(|n| [n; 32]).find(|bytes| VerifyingKey::from_bytes(bytes).is_err()).unwrap();
    for bytes in [neutral, none] {
        let begun = Sealer::begin(key(1), PublicKey(bytes), told, &mut CountingEntropy(1));
        assert_eq!(begun.err(), Some(TransferError::BadKey));
    }
    let begin = || Sealer::begin(key(1), key(2).public(), told, &mut CountingEntropy(1)).unwrap().0;
    assert_eq!(begin().finish(), Err(TransferError::Count));
    let mut sealer = begin();
    sealer.person(&person(1)).unwrap();
    assert_eq!(sealer.person(&person(2)), Err(TransferError::Count));
    let mut sealer = begin();
    let long = PersonData { chips: [[0; MAX_RECORD].to_vec()].to_vec(), ..person(1) };
    assert_eq!(sealer.person(&long), Err(TransferError::TooLong));
}
