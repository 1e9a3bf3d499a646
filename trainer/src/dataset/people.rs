//! Batches of a few people with many faces each, and faces of many others as further negatives (FaceNet, section 3.2).

use std::collections::{BTreeMap, HashSet};

use super::manifest::Row;
use super::random::{Random, Stream};

/// Whose faces there are to draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct People {
    /// Rows of each identity, identities in the order of their names.
    faces: Vec<Vec<u32>>,
    /// Identity of each face of people with at least two: drawing one of these even draws people by their number of faces.
    tickets: Vec<u32>,
}

/// Which faces make a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// People with several faces.
    pub people: usize,
    /// Faces of each, if there are as many.
    pub faces: usize,
    /// Faces of other people, one each.
    pub others: usize,
}

impl Draw {
    /// Faces of a batch.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.people * self.faces + self.others
    }
}

impl People {
    /// The people of `rows`; rows without an identity are left out.
    #[must_use]
    pub fn new(all: &[Row], rows: &[u32]) -> Self {
        let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for &row in rows {
            if let Some(identity) = &all[row as usize].identity {
                by_name.entry(identity).or_default().push(row);
            }
        }
        let faces: Vec<Vec<u32>> = by_name.into_values().collect();
        let tickets = faces
            .iter()
            .enumerate()
            .filter(|(_, faces)| faces.len() > 1)
            .flat_map(|(person, faces)| std::iter::repeat_n(person as u32, faces.len()))
            .collect();
        Self { faces, tickets }
    }

    /// People with at least two faces.
    #[must_use]
    pub fn several(&self) -> usize {
        self.faces.iter().filter(|faces| faces.len() > 1).count()
    }

    /// All people.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faces.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faces.is_empty()
    }

    /// Row and person of each face of the batch of `step`, a function of `seed` and `step` alone. People are drawn by their number of faces, none
    /// twice; faces of one person are drawn without repetition. Where a person has fewer than asked, faces of others make up for them, so
    /// that batches are of one size as long as there are people enough.
    #[must_use]
    pub fn batch(&self, draw: Draw, seed: u64, step: u64) -> Vec<(u32, i64)> {
        let mut random = Random::new(seed, Stream::Sampler, step);
        let mut batch = Vec::with_capacity(draw.size());
        let mut taken = HashSet::new();
        let people = draw.people.min(self.several());
        while taken.len() < people {
            let person = self.tickets[random.below(self.tickets.len())];
            if !taken.insert(person) {
                continue;
            }
            let mut faces = self.faces[person as usize].clone();
            random.shuffle(&mut faces);
            batch.extend(faces.into_iter().take(draw.faces).map(|row| (row, i64::from(person))));
        }
        while batch.len() < draw.size() && taken.len() < self.faces.len() {
            let person = random.below(self.faces.len()) as u32;
            if taken.insert(person) {
                let faces = &self.faces[person as usize];
                batch.push((faces[random.below(faces.len())], i64::from(person)));
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(counts: &[usize]) -> Vec<Row> {
        let row = |person: usize, number: usize| Row {
            shard: "s".into(),
            member: format!("{person}-{number}"),
            set: String::new(),
            identity: Some(format!("p{person:03}")),
            masked: false,
        };
        counts.iter().enumerate().flat_map(|(p, &n)| (0..n).map(move |i| row(p, i))).collect()
    }

    proptest! {
        #[test]
        fn a_batch_has_distinct_faces_with_their_own_people(
            counts in prop::collection::vec(1_usize..9, 1..40), people in 1_usize..6, faces in 2_usize..6, others in 0_usize..9, step in 0_u64..20,
        ) {
            let rows = rows(&counts);
            let all: Vec<u32> = (0..rows.len() as u32).collect();
            let draw = Draw { people, faces, others };
            let pool = People::new(&rows, &all);
            let batch = pool.batch(draw, 7, step);
            prop_assert!(batch.len() <= draw.size());
            let distinct: HashSet<u32> = batch.iter().map(|b| b.0).collect();
            prop_assert_eq!(distinct.len(), batch.len());
            let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
            for &(row, person) in &batch {
                prop_assert_eq!(rows[row as usize].identity.clone().unwrap(), format!("p{person:03}"));
                *sizes.entry(person).or_default() += 1;
            }
            let several = sizes.values().filter(|&&n| n > 1).count();
            prop_assert_eq!(several, people.min(pool.several()));
            prop_assert!(sizes.values().all(|&n| n <= faces));
            prop_assert!(batch.len() == draw.size() || sizes.len() == counts.len());
            prop_assert_eq!(pool.batch(draw, 7, step), batch);
        }
    }

    #[test]
    fn rows_of_unknown_people_are_left_out() {
        let mut rows = rows(&[2, 2]);
        rows[1].identity = None;
        let pool = People::new(&rows, &[0, 1, 2, 3]);
        assert_eq!((pool.len(), pool.several(), pool.is_empty()), (2, 1, false));
        assert!(People::new(&rows, &[1]).is_empty());
    }
}
