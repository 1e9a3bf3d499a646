//! Identity-disjoint splits by hash: a person is wholly in one part, whatever the order or number of rows.

use sha2::{Digest, Sha256};

use super::manifest::Row;

/// Row numbers of the two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows to learn from.
    pub train: Vec<u32>,
    /// Rows never learnt from; identities are disjoint from `train`'s.
    pub held_out: Vec<u32>,
    /// Distinct identities in `train`.
    pub train_identities: usize,
    /// Distinct identities in `held_out`.
    pub held_out_identities: usize,
}

/// Holds out about `share` (0–1) of the identities, and of the pictures without one. `usable` says which rows may be used at all.
#[must_use]
pub fn by_identity(rows: &[Row], usable: &[bool], share: f64, seed: u64) -> Split {
    let mut split =
        Split { train: Vec::new(), held_out: Vec::new(), train_identities: 0, held_out_identities: 0 };
    let mut seen = std::collections::HashSet::new();
    for (number, row) in rows.iter().enumerate() {
        if !usable.get(number).copied().unwrap_or(false) {
            continue;
        }
        let out = position(&row.split_key(), seed) < share;
        let (rows, identities) = if out {
            (&mut split.held_out, &mut split.held_out_identities)
        } else {
            (&mut split.train, &mut split.train_identities)
        };
        rows.push(number as u32);
        if row.identity.as_ref().is_some_and(|name| seen.insert(name.clone())) {
            *identities += 1;
        }
    }
    split
}

/// Row numbers of three parts whose identities are disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Learnt from.
    pub train: Vec<u32>,
    /// Sets thresholds and ranges; never learnt from, never reported.
    pub calibration: Vec<u32>,
    /// Reported; never learnt from.
    pub test: Vec<u32>,
}

/// Puts about `calibration` and `test` (0–1) of the identities, and of the pictures without one, apart. A person's part
/// depends on the name and the seed alone, so it stays when data is added.
#[must_use]
pub fn in_parts(rows: &[Row], usable: &[bool], calibration: f64, test: f64, seed: u64) -> Parts {
    let mut parts = Parts::default();
    for (number, row) in rows.iter().enumerate().filter(|(n, _)| usable.get(*n).copied().unwrap_or(false)) {
        let at = position(&row.split_key(), seed);
        let part = if at < test {
            &mut parts.test
        } else if at < test + calibration {
            &mut parts.calibration
        } else {
            &mut parts.train
        };
        part.push(number as u32);
    }
    parts
}

/// A point in [0, 1) that depends on the key and the seed alone.
fn position(key: &str, seed: u64) -> f64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(key).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_le_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(identity: usize, number: usize) -> Row {
        Row {
            shard: "s.tar".into(),
            member: format!("{number}"),
            set: String::new(),
            identity: (identity > 0).then(|| format!("p{identity}")),
            masked: false,
        }
    }

    proptest! {
        #[test]
        fn no_identity_is_in_both_parts(ids in prop::collection::vec(0_usize..30, 1..300), seed in 0_u64..50) {
            let rows: Vec<Row> = ids.iter().enumerate().map(|(n, &id)| row(id, n)).collect();
            let split = by_identity(&rows, &vec![true; rows.len()], 0.3, seed);
            prop_assert_eq!(split.train.len() + split.held_out.len(), rows.len());
            for &a in &split.train {
                for &b in &split.held_out {
                    let (a, b) = (&rows[a as usize], &rows[b as usize]);
                    prop_assert!(a.identity.is_none() || a.identity != b.identity);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn three_parts_share_nobody_and_lose_nothing(
            ids in prop::collection::vec(0_usize..30, 1..300), seed in 0_u64..50,
        ) {
            let rows: Vec<Row> = ids.iter().enumerate().map(|(n, &id)| row(id, n)).collect();
            let Parts { train, calibration, test } = in_parts(&rows, &vec![true; rows.len()], 0.2, 0.2, seed);
            prop_assert_eq!(train.len() + calibration.len() + test.len(), rows.len());
            let people = |part: &[u32]| -> std::collections::HashSet<String> {
                part.iter().map(|&r| rows[r as usize].split_key()).collect()
            };
            let (a, b, c) = (people(&train), people(&calibration), people(&test));
            prop_assert!(a.is_disjoint(&b) && a.is_disjoint(&c) && b.is_disjoint(&c));
        }
    }

    #[test]
    fn the_share_is_met_and_unusable_rows_are_in_neither_part() {
        let rows: Vec<Row> = (0..5000).map(|n| row(n + 1, n)).collect();
        let mut usable = vec![true; 5000];
        usable[17] = false;
        let split = by_identity(&rows, &usable, 0.02, 3);
        assert!((60..140).contains(&split.held_out.len()), "{}", split.held_out.len());
        assert_eq!(split.train_identities + split.held_out_identities, 4999);
        assert!(!split.train.contains(&17) && !split.held_out.contains(&17));
    }
}
