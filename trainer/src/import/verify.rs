//! Checks that a rewritten file still means what the original meant.
//!
//! tract cannot run the original, so that the two cannot simply be compared. Instead: every folded constant is computed a
//! second time, straight from the original's bytes by another route, and compared bit by bit; every other node must be the
//! original's, unchanged; and the file's answers on a fixed picture are compared with golden figures that onnxruntime gave for the
//! original (presets), or must at least be finite, repeatable and dependent on the picture (any other file).

use std::collections::HashMap;
use std::path::Path;

use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::runtime::Network;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::dequantize::int_attribute;
use super::presets::Golden;
use super::tensor::{self, Elements};

/// Compares `rewritten` with `original`, node by node and weight by weight. Returns how many weights were compared.
///
/// # Errors
/// A sentence that names the first difference.
pub(super) fn same_meaning(original: &ModelProto, rewritten: &ModelProto) -> Result<usize, String> {
    let (Some(before), Some(after)) = (&original.graph, &rewritten.graph) else {
        return Err("a graph is missing".into());
    };
    let producers: HashMap<&str, &NodeProto> = before
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)))
        .collect();
    for node in &after.node {
        if !node.output.iter().all(|name| producers.get(name.as_str()).is_some_and(|old| *old == node)) {
            return Err(format!("node '{}' is not the original's", node.name));
        }
    }
    let mut compared = 0;
    for tensor in &after.initializer {
        if tensor::initializer(before, &tensor.name).is_some_and(|old| old == tensor) {
            continue;
        }
        compared += compare(before, &producers, tensor)?;
    }
    Ok(compared)
}

fn compare(
    before: &GraphProto,
    producers: &HashMap<&str, &NodeProto>,
    folded: &TensorProto,
) -> Result<usize, String> {
    let fail = |why: String| format!("constant '{}': {why}", folded.name);
    let mut node =
        *producers.get(folded.name.as_str()).ok_or_else(|| fail("nothing made it in the original".into()))?;
    // Reshapes change no value and no order.
    while node.op_type == "Reshape" {
        node =
            producers.get(node.input[0].as_str()).ok_or_else(|| fail("reshapes what nothing made".into()))?;
    }
    if node.op_type != "DequantizeLinear" {
        return Err(fail(format!("'{}' is no dequantization", node.name)));
    }
    let read = |at: usize| {
        let name = node.input.get(at).filter(|name| !name.is_empty());
        name.and_then(|name| tensor::initializer(before, name))
    };
    let (Some(codes), Some(scales)) = (read(0), read(1)) else {
        return Err(fail("its operands are gone".into()));
    };
    let Elements::Floats(actual) = tensor::elements(folded).map_err(fail)? else {
        return Err(fail("it is not float".into()));
    };
    let rank = codes.dims.len();
    let axis = int_attribute(node, "axis").unwrap_or(1);
    let axis = if axis < 0 { (axis + rank as i64) as usize } else { axis as usize };
    let block = int_attribute(node, "block_size").unwrap_or(0).max(1);
    let mut at = vec![0_i64; rank];
    for (flat, &value) in actual.iter().enumerate() {
        let mut scale_at = at.clone();
        scale_at[axis] /= block;
        let scale = element(scales, &scale_at).ok_or_else(|| fail("a scale is missing".into()))?;
        let code = element(codes, &at).ok_or_else(|| fail("a code is missing".into()))?;
        let zero = match read(2) {
            Some(points) => {
                element(points, &scale_at).ok_or_else(|| fail("a zero point is missing".into()))?
            }
            None => 0.0,
        };
        // Codes and zero points are small integers: their difference is exact in f32, the product rounds once.
        let expected = (code - zero) * scale;
        if expected.to_bits() != value.to_bits() && expected != value {
            return Err(fail(format!("element {flat} is {value}, the original says {expected}")));
        }
        for position in (0..rank).rev() {
            at[position] += 1;
            if at[position] < codes.dims[position] {
                break;
            }
            at[position] = 0;
        }
    }
    Ok(actual.len())
}

/// One element of an int8, uint8 or float tensor, straight from its bytes.
fn element(tensor: &TensorProto, at: &[i64]) -> Option<f32> {
    if at.len() != tensor.dims.len() {
        return None;
    }
    let mut flat = 0_usize;
    for (&index, &dim) in at.iter().zip(&tensor.dims) {
        flat = flat * usize::try_from(dim).ok()? + usize::try_from(index).ok()?;
    }
    let raw = &tensor.raw_data;
    match tensor.data_type {
        1 if raw.is_empty() => tensor.float_data.get(flat).copied(),
        1 => Some(f32::from_le_bytes(raw.get(flat * 4..flat * 4 + 4)?.try_into().ok()?)),
        2 | 3 if raw.is_empty() => tensor.int32_data.get(flat).map(|&v| v as f32),
        2 => raw.get(flat).map(|&v| f32::from(v)),
        3 => raw.get(flat).map(|&v| f32::from(v as i8)),
        _ => None,
    }
}

/// What a model answered on the fixed picture.
pub(super) struct Answers {
    /// Every output's elements, in the order of the graph's outputs.
    pub(super) outputs: Vec<Vec<f32>>,
}

/// Loads `bytes` as the door does and runs it on [`picture`].
///
/// # Errors
/// What tract says, or what is odd about the answers.
pub(super) fn run(bytes: &[u8], width_px: usize, height_px: usize) -> Result<Answers, String> {
    let said = |error: VisionError| match error {
        VisionError::Model { stage, reason, .. } => format!("{stage}: {reason}"),
        VisionError::Shape { reason, .. } => reason,
        other => other.to_string(),
    };
    let mut network = Network::from_bytes(Path::new("model"), bytes, width_px, height_px).map_err(said)?;
    let mut answer = |values: &[f32]| -> Result<Vec<Vec<f32>>, String> {
        network.input_mut().map_err(said)?.copy_from_slice(values);
        let outputs = network.run().map_err(said)?;
        outputs
            .iter()
            .map(|output| {
                let view = output.to_plain_array_view::<f32>().map_err(|e| format!("{e:#}"))?;
                Ok(view.iter().copied().collect())
            })
            .collect()
    };
    let outputs = answer(&picture(width_px, height_px))?;
    if outputs.iter().flatten().any(|v| !v.is_finite()) {
        return Err("an output is not a finite number".into());
    }
    if answer(&picture(width_px, height_px))? != outputs {
        return Err("two runs on one picture differ".into());
    }
    if answer(&vec![0.0; 3 * width_px * height_px])? == outputs {
        return Err("the answer does not depend on the picture".into());
    }
    Ok(Answers { outputs })
}

/// The fixed picture, values 0 to 255 in planes: blocks of 8 × 8 px with a fine texture, from integer arithmetic alone so
/// that any language makes the same one.
pub(super) fn picture(width_px: usize, height_px: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(3 * width_px * height_px);
    for plane in 0..3 {
        for y in 0..height_px {
            for x in 0..width_px {
                let value = (x / 8 * 73 + y / 8 * 151 + plane * 57 + x * y % 32) % 256;
                values.push(value as f32);
            }
        }
    }
    values
}

/// Compares answers with the golden figures. Returns the largest difference, relative to each output's length.
///
/// # Errors
/// A sentence that names the output that differs.
pub(super) fn compare_golden(answers: &Answers, golden: &[Golden]) -> Result<f32, String> {
    if answers.outputs.len() != golden.len() {
        return Err(format!("{} outputs where {} are known", answers.outputs.len(), golden.len()));
    }
    let mut worst = 0.0_f32;
    for (at, (output, known)) in answers.outputs.iter().zip(golden).enumerate() {
        let fail = |why: String| format!("output {at} ({}): {why}", known.name);
        if output.len() != known.elements {
            return Err(fail(format!("{} elements where {} are known", output.len(), known.elements)));
        }
        let norm = output.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let norm_difference =
            ((norm - f64::from(known.norm)) / f64::from(known.norm.max(SMALL_OUTPUT))).abs() as f32;
        let peak = output.iter().fold(0.0_f32, |peak, v| peak.max(v.abs())).max(SMALL_OUTPUT);
        let difference = known
            .samples
            .iter()
            .enumerate()
            .map(|(i, sample)| (output[i * output.len() / known.samples.len()] - sample).abs() / peak)
            .fold(norm_difference, f32::max);
        if difference > GOLDEN_TOLERANCE {
            return Err(fail(format!("off by {difference:.2e}, at most {GOLDEN_TOLERANCE:.0e} is rounding")));
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}

/// Two runtimes sum floats in different orders and approximate the sigmoid differently: measured at 5e-5 for YuNet and 2e-6
/// for SFace.
const GOLDEN_TOLERANCE: f32 = 3e-4;

/// Outputs smaller than this are compared by absolute difference: a sigmoid near zero keeps an error of 1e-7, however small it
/// is.
const SMALL_OUTPUT: f32 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(norm: f32, samples: &[f32]) -> Golden {
        Golden { name: "y".into(), elements: 4, norm, samples: samples.to_vec() }
    }

    #[test]
    fn golden_figures_catch_a_changed_answer() {
        let answers = Answers { outputs: vec![vec![3.0, 0.0, 4.0, 0.0]] };
        assert!(compare_golden(&answers, &[known(5.0, &[3.0, 4.0])]).unwrap() < 1e-6);
        assert!(compare_golden(&answers, &[known(5.0, &[3.0, 4.01])]).unwrap_err().contains("output 0 (y)"));
        assert!(compare_golden(&answers, &[known(5.1, &[3.0, 4.0])]).is_err());
        assert!(compare_golden(&answers, &[]).is_err());
        let longer = Golden { elements: 5, ..known(5.0, &[3.0]) };
        assert!(compare_golden(&answers, &[longer]).unwrap_err().contains("4 elements where 5"));
    }

    #[test]
    fn the_fixed_picture_is_fixed() {
        let values = picture(16, 16);
        assert_eq!(values.len(), 3 * 16 * 16);
        assert_eq!(
            [values[0], values[8], values[8 * 16], values[256], values[9 * 16 + 15]],
            [0.0, 73.0, 151.0, 57.0, 231.0]
        );
    }
}
