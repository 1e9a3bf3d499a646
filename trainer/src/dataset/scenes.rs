//! Uncropped pictures with boxes and landmarks: `labels.csv` and `scenes.tar`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::picture::{ArchiveError, Picture, read_tar};

/// A picture and the faces in it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Its name in the archive.
    pub name: String,
    /// Whether it is kept for testing.
    pub test: bool,
    /// The picture as stored.
    pub picture: Picture,
    /// Its faces, as labelled.
    pub faces: Vec<SceneFace>,
}

/// One labelled face, in stored pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SceneFace {
    /// x, y, width, height.
    pub bbox: [f32; 4],
    /// Five landmarks in image order.
    pub landmarks: [[f32; 2]; 5],
    /// Neither a face nor background: too faint or too small.
    pub ignore: bool,
    /// Its row among the picture's rows in `labels.csv`, from 0: `image#number` names it.
    pub number: usize,
}

impl Scene {
    /// A point in [0, 1) that depends on the name alone, for splits within the training part.
    #[must_use]
    pub fn position(&self) -> f64 {
        let digest = Sha256::digest(self.name.as_bytes());
        f64::from(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])) / 4_294_967_296.0
    }
}

/// Reads `folder/labels.csv` and decodes the pictures of `folder/scenes.tar` that it names.
///
/// # Errors
/// [`SceneError`] naming the file and line.
pub fn load(folder: &Path) -> Result<Vec<Scene>, SceneError> {
    let rows = labels(folder)?;
    let members = read_tar(&folder.join("scenes.tar"))?;
    rows.into_iter()
        .map(|row| {
            let fail = |reason: String| SceneError::Picture { name: row.name.clone(), reason };
            let bytes = members.get(&row.name).ok_or_else(|| fail("it is not in scenes.tar".into()))?;
            let picture = Picture::decode(bytes).map_err(fail)?;
            Ok(Scene { name: row.name, test: row.test, picture, faces: row.faces })
        })
        .collect()
}

/// Names of the scenes that are not kept for testing; no picture is decoded.
///
/// # Errors
/// [`SceneError`] naming the file and line.
pub fn training_names(folder: &Path) -> Result<Vec<String>, SceneError> {
    Ok(labels(folder)?.into_iter().filter(|scene| !scene.test).map(|scene| scene.name).collect())
}

fn labels(folder: &Path) -> Result<Vec<Labelled>, SceneError> {
    let path = folder.join("labels.csv");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| SceneError::Archive(ArchiveError { path: path.clone(), source }))?;
    parse(&text).map_err(|(line, reason)| SceneError::Labels { path, line, reason })
}

/// What the rows of one picture say.
#[derive(Debug, PartialEq)]
struct Labelled {
    name: String,
    test: bool,
    faces: Vec<SceneFace>,
}

fn parse(text: &str) -> Result<Vec<Labelled>, (usize, String)> {
    let mut lines = text.lines().zip(1..);
    let (head, _) = lines.next().ok_or((1, "it is empty".to_owned()))?;
    let columns: HashMap<&str, usize> = head.split(',').zip(0..).collect();
    let column = |name: &str| columns.get(name).copied().ok_or((1, format!("there is no column '{name}'")));
    let (image, split, ignore) = (column("image")?, column("split")?, column("ignore")?);
    let mut numbers = Vec::new();
    for name in ["x", "y", "w", "h"] {
        numbers.push(column(name)?);
    }
    for k in 1..=5 {
        numbers.extend([column(&format!("lm{k}x"))?, column(&format!("lm{k}y"))?]);
    }
    let mut scenes: Vec<Labelled> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != columns.len() {
            return Err((number, format!("{} columns instead of {}", cells.len(), columns.len())));
        }
        let at = *index.entry(cells[image].to_owned()).or_insert_with(|| {
            scenes.push(Labelled {
                name: cells[image].to_owned(),
                test: cells[split] == "test",
                faces: Vec::new(),
            });
            scenes.len() - 1
        });
        if cells[numbers[0]].is_empty() {
            continue;
        }
        let mut values = [0.0_f32; 14];
        for (value, &column) in values.iter_mut().zip(&numbers) {
            *value = cells[column]
                .parse()
                .map_err(|_| (number, format!("'{}' is not a number", cells[column])))?;
        }
        let faces = &mut scenes[at].faces;
        faces.push(SceneFace {
            bbox: [values[0], values[1], values[2], values[3]],
            landmarks: std::array::from_fn(|k| [values[4 + 2 * k], values[5 + 2 * k]]),
            ignore: cells[ignore] == "1",
            number: faces.len(),
        });
    }
    Ok(scenes)
}

/// Scenes that cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SceneError {
    /// A file cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A line of the labels.
    #[error("{} line {line}: {reason}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A picture.
    #[error("scene '{name}': {reason}")]
    Picture {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "image,split,source,width,height,source_width,source_height,faces,x,y,w,h,lm1x,lm1y,lm2x,lm2y,lm3x,lm3y,lm4x,lm4y,lm5x,lm5y,score,ignore";

    #[test]
    fn rows_of_one_picture_become_one_scene_and_none_has_no_faces() {
        let text = format!(
            "{HEAD}\na,train,s,9,9,9,9,2,1,2,3,4,1,1,2,2,3,3,4,4,5,5,0.9,0\na,train,s,9,9,9,9,2,5,6,7,8,1,1,2,2,3,3,4,4,5,5,0.5,1\nn,test,none,9,9,9,9,0,,,,,,,,,,,,,,,,\n"
        );
        let scenes = parse(&text).unwrap();
        assert_eq!(scenes.len(), 2);
        assert_eq!((scenes[0].faces[0].bbox, scenes[0].faces[1].ignore), ([1.0, 2.0, 3.0, 4.0], true));
        assert_eq!((scenes[0].faces[1].number, scenes[0].faces[0].landmarks[4]), (1, [5.0, 5.0]));
        assert!(scenes[1].test && scenes[1].faces.is_empty());
    }

    #[test]
    fn a_bad_cell_is_named_with_its_line() {
        let text = format!("{HEAD}\na,train,s,9,9,9,9,1,1,2,three,4,1,1,2,2,3,3,4,4,5,5,0.9,0\n");
        let (line, reason) = parse(&text).unwrap_err();
        assert!(line == 2 && reason.contains("three"), "{reason}");
        assert!(parse("image\n").unwrap_err().1.contains("split"));
    }
}
