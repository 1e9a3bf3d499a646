//! Who is collected: a list of names with attributes, without the people of benchmarks, balanced.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::store::Person;
use super::table::{Table, place};

/// Reads a CSV of people: a column `name`, optionally `popularity` (a number, larger is better known), and any others, which become
/// attributes. Most popular first; of equals the earlier line.
///
/// # Errors
/// [`NamesError`] naming the line.
pub fn read(path: &Path) -> Result<Vec<Person>, NamesError> {
    let malformed = |line, reason: String| NamesError::Malformed { path: path.to_owned(), line, reason };
    let table = Table::read(path).map_err(|(line, reason)| malformed(line, reason))?;
    let header = &table.header;
    let name = header.iter().position(|column| column.eq_ignore_ascii_case("name"));
    let name = name.ok_or_else(|| malformed(1, "the header has no column 'name'".into()))?;
    let popularity = header.iter().position(|column| column.eq_ignore_ascii_case("popularity"));
    let mut people: Vec<(f64, Person)> = Vec::new();
    let mut seen = HashMap::new();
    for (line, row) in &table.rows {
        let line = *line;
        let field = |at: usize| row[at].trim();
        if letters(field(name)).is_empty() {
            return Err(malformed(line, "it names nobody".into()));
        }
        if let Some(before) = seen.insert(letters(field(name)), line) {
            return Err(malformed(line, format!("'{}' stands on line {before} too", field(name))));
        }
        let rank = match popularity.map(field) {
            None | Some("") => 0.0,
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())
                .ok_or_else(|| malformed(line, format!("popularity '{text}' is no number")))?,
        };
        let columns = header.iter().enumerate().filter(|&(at, _)| at != name);
        let attributes = columns
            .map(|(at, column)| (column.to_owned(), field(at).to_owned()))
            .filter(|(_, v)| !v.is_empty());
        let person =
            Person { name: field(name).to_owned(), attributes: attributes.collect(), left_out: None };
        people.push((rank, person));
    }
    if people.is_empty() {
        return Err(malformed(1, "it names nobody".into()));
    }
    people.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(people.into_iter().map(|(_, person)| person).collect())
}

/// A name's letters and digits, in lower case and Latin script: what two spellings of one name share.
#[must_use]
pub fn letters(name: &str) -> String {
    words(name).concat()
}

fn words(name: &str) -> Vec<String> {
    let latin = deunicode::deunicode(name).to_lowercase();
    let all: Vec<String> = latin
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect();
    // Initials come and go; a name that is nothing else keeps them.
    let long: Vec<String> = all.iter().filter(|word| word.len() > 1).cloned().collect();
    if long.len() >= 2 || (long.len() == 1 && all.len() == 1) { long } else { all }
}

/// Names that must not be collected, found in other spellings too.
#[derive(Debug)]
pub struct Forbidden {
    names: Vec<Spelling>,
    exact: HashMap<String, usize>,
    fuzzy: bool,
}

#[derive(Debug)]
struct Spelling {
    as_written: String,
    /// In the order written, and with the words sorted: family names come first or last.
    forms: [Vec<u8>; 2],
    counts: [u8; 36],
}

impl Spelling {
    fn new(name: &str) -> Self {
        let mut words = words(name);
        let written = words.concat().into_bytes();
        words.sort();
        let mut counts = [0_u8; 36];
        for c in &written {
            let at = if c.is_ascii_digit() { c - b'0' + 26 } else { c - b'a' };
            counts[usize::from(at)] = counts[usize::from(at)].saturating_add(1);
        }
        Self { as_written: name.to_owned(), forms: [written, words.concat().into_bytes()], counts }
    }
}

impl Forbidden {
    /// Forbids `names`; `fuzzy` forbids their likely misspellings too.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, fuzzy: bool) -> Self {
        let names: Vec<Spelling> = names.map(Spelling::new).collect();
        let mut exact = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            for form in &name.forms {
                exact.insert(String::from_utf8_lossy(form).into_owned(), at);
            }
        }
        Self { names, exact, fuzzy }
    }

    /// The forbidden name that `name` spells, if any. Words may come in any order, initials, case, accents and signs do not matter, and
    /// one letter may be wrong, missing, added or swapped in names of 8 letters or more, two in names of 12 or more. It is meant to err on the
    /// side of leaving out: *Maria Lopez* falls with *Mario Lopez*. Nicknames are not known.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let spelling = Spelling::new(name);
        let exact = spelling.forms.iter().find_map(|form| self.exact.get(&*String::from_utf8_lossy(form)));
        if let Some(&at) = exact {
            return Some(&self.names[at].as_written);
        }
        let allowed = match spelling.forms[0].len() {
            _ if !self.fuzzy => 0,
            0..8 => 0,
            8..12 => 1,
            _ => 2,
        };
        if allowed == 0 {
            return None;
        }
        let near = |other: &&Spelling| {
            // An edit changes at most two letters' counts: a cheap test for most pairs.
            let apart: u32 =
                spelling.counts.iter().zip(&other.counts).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            apart <= 2 * allowed as u32
                && spelling.forms.iter().zip(&other.forms).any(|(a, b)| edits(a, b) <= allowed)
        };
        self.names.iter().find(near).map(|name| name.as_written.as_str())
    }
}

/// Letters added, dropped, replaced or swapped with their neighbour (optimal string alignment; Damerau 1964).
#[must_use]
pub fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

/// Leaves out, of people in order of popularity, all beyond `most`; with `by`, as many of each of that attribute's values as there can be.
/// Those left out already do not count.
pub fn balance(people: &mut [Person], most: Option<usize>, by: Option<&str>) {
    let value = |person: &Person| -> String {
        let Some(by) = by else { return String::new() };
        let found = person.attributes.iter().find(|(column, _)| column == by);
        found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.clone())
    };
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, person) in people.iter().enumerate().filter(|(_, person)| person.left_out.is_none()) {
        groups.entry(value(person)).or_default().push(at);
    }
    let total: usize = groups.values().map(Vec::len).sum();
    let most = most.unwrap_or(total).min(total);
    // Smallest group first: what it cannot fill goes to the larger ones. Without a limit every value gets as many as the rarest.
    let mut order: Vec<Vec<usize>> = groups.into_values().collect();
    order.sort_by_key(Vec::len);
    let rarest = order.first().map_or(0, Vec::len);
    let (mut left, mut groups_left) =
        (if by.is_some() && most == total { rarest * order.len() } else { most }, order.len());
    for group in order {
        let share = (left / groups_left.max(1)).min(group.len());
        for &at in &group[share..] {
            people[at].left_out = Some(match by {
                Some(by) => format!("balance of {by}"),
                None => "less popular".into(),
            });
        }
        left -= share;
        groups_left -= 1;
    }
}

/// A list of people that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NamesError {
    /// A line does not fit.
    #[error("{}: {reason}", place(path, *line))]
    Malformed {
        /// The list.
        path: PathBuf,
        /// Line, counted from one.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(text: &str) -> Result<Vec<Person>, NamesError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.csv"), text).unwrap();
        read(&dir.path().join("p.csv"))
    }

    #[test]
    fn lists_are_sorted_by_popularity_and_bad_lines_are_named() {
        let list = people("name,gender,popularity\n\"Lee, Ann\",f,3\nBob Ray,m,9\n").unwrap();
        assert_eq!((list[0].name.as_str(), list[1].name.as_str()), ("Bob Ray", "Lee, Ann"));
        assert_eq!(list[1].attributes, [("gender".into(), "f".into()), ("popularity".into(), "3".into())]);
        for (text, part) in [
            ("id\n1\n", "no column 'name'"),
            ("name\n", "nobody"),
            ("name,popularity\nAnn,x\n", "line 2"),
            ("name\nAnn Lee\nBob\nANN LEE\n", "line 2 too"),
        ] {
            let said = people(text).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn other_spellings_are_found_and_other_people_are_not() {
        let names = ["Aaron_Eckhart", "George_W_Bush", "José María Aznar", "Jennifer Lopez", "Li_Na"];
        let forbidden = Forbidden::new(names.into_iter(), true);
        for spelled in [
            "aaron eckhart",
            "Eckhart, Aaron",
            "Aaron Eckhardt",
            "Araon Eckhart",
            "George Bush",
            "Jose Maria Aznar",
            "Jenifer López",
            "Jenifer Lopes",
            "Na Li",
            "LI NA",
        ] {
            assert!(forbidden.find(spelled).is_some(), "{spelled}");
        }
        for other in ["Aaron Peirsol", "Laura Bush", "Jennifer Aniston", "Li Ning", "Lia"] {
            assert_eq!(forbidden.find(other), None, "{other}");
        }
        let exact = Forbidden::new(names.into_iter(), false);
        assert!(exact.find("Eckhart, Aaron").is_some() && exact.find("Aaron Eckhardt").is_none());
    }

    #[test]
    fn edits_count_letters() {
        for (a, b, count) in
            [("abcd", "abdc", 1), ("abcd", "abcd", 0), ("", "ab", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), count);
            assert_eq!(edits(b.as_bytes(), a.as_bytes()), count);
        }
    }

    #[test]
    fn balance_keeps_the_popular_and_evens_the_groups() {
        let person = |name: String, gender: &str| Person {
            name,
            attributes: vec![("gender".into(), gender.into())],
            left_out: None,
        };
        let list: Vec<Person> =
            (0..10).map(|i| person(format!("p{i}"), if i % 5 == 4 { "f" } else { "m" })).collect();
        let kept = |most, by: Option<&str>| -> Vec<String> {
            let mut list = list.clone();
            balance(&mut list, most, by);
            list.into_iter().filter(|p| p.left_out.is_none()).map(|p| p.name).collect()
        };
        assert_eq!(kept(Some(4), Some("gender")), ["p0", "p1", "p4", "p9"]);
        assert_eq!(kept(None, Some("gender")), ["p0", "p1", "p4", "p9"]);
        assert_eq!(kept(Some(6), Some("gender")).len(), 6, "the rarer value cannot fill its half");
        assert_eq!(kept(Some(3), None), ["p0", "p1", "p2"]);
        assert_eq!(kept(None, None).len(), 10);
    }
}
