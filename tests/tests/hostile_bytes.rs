//! Every reader of foreign bytes on seeds, on inputs that once failed, and on changed seeds: no panic, no broken property.
//! `make fuzz` goes on from here for as long as one likes.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use facelatch_tests::fuzz::{TARGETS, Target, target};

/// Changed seeds a target; loading a model takes a hundred times as long as the others.
const TRIES: [(&str, u32); 8] = [
    ("protocol", 4000),
    ("bundle", 1500),
    ("gallery", 400),
    ("events", 400),
    ("model", 250),
    ("settings", 400),
    ("picture", 1000),
    ("sealed", 1500),
];

#[test]
fn no_bytes_make_a_reader_panic() {
    for (name, tries) in TRIES {
        let target = target(name);
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| check(&target, seed));
        let mut random = Random(0x5EED ^ u64::from(tries));
        for _ in 0..tries {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                change(&mut bytes, &seeds, &mut random);
            }
            check(&target, &bytes);
        }
    }
}

#[test]
fn what_once_failed_holds() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found");
    for target in TARGETS {
        for entry in std::fs::read_dir(found.join(target.name)).into_iter().flatten() {
            check(&target, &std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn a_reader_that_panics_is_caught() {
    let broken = Target { name: "broken", run: |bytes| assert!(bytes.len() < 4), seeds: || vec![vec![0; 3]] };
    assert!(catch_unwind(|| check(&broken, &[1, 2, 3, 4, 5])).is_err());
    check(&broken, &[1]);
}

fn check(target: &Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} failed on {} bytes: {text}", target.name, bytes.len());
    }
}

/// One of the changes that damage and attackers make.
fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = [0, 0x7F, 0x80, 0xFF][random.below(4)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.below(256) as u8),
        4 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            bytes.splice(at.., other[from..].iter().copied());
        }
        5 => {
            let end = (at + random.below(32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        // Lengths are varints in most of these formats: a huge one.
        _ => {
            bytes.splice(at..at, [0xFF, 0xFF, 0xFF, 0xFF, 0x0F]);
        }
    }
}

/// xorshift64*: the same inputs at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}
