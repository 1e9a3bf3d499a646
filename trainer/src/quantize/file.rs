//! A quantized net in one safetensors file: shape, folded weights, which layers are integer, ranges and scales.

use std::path::Path;

use tch::{Device, Kind, Tensor, nn::VarStore};

use super::net::Net;
use super::observer::Range;
use super::simulate::Plan;
use super::{QuantizeError, Quantized};
use crate::export::CHIP_PX;
use crate::model::compact::{Compact, Shape};

/// The name that `facelatch quantize` gives the file in a run's folder, and that `export --form int8` looks for.
pub const QUANTIZED: &str = "int8.safetensors";

/// Writes `quantized`, a net of `shape`: a new file, renamed into place.
///
/// # Errors
/// [`QuantizeError::File`].
pub fn save(path: &Path, shape: &Shape, quantized: &Quantized) -> Result<(), QuantizeError> {
    let Quantized { net, plan, scales } = quantized;
    let mut tensors = vec![("shape".to_owned(), shape_tensor(shape))];
    for (layer, (weight, bias)) in net.layers.iter().zip(net.tensors()) {
        tensors.push((format!("{}.weight", layer.name), weight));
        tensors.push((format!("{}.bias", layer.name), bias));
    }
    let integer: Vec<i64> = plan.integer.iter().map(|&i| i64::from(i)).collect();
    tensors.push(("integer".into(), Tensor::from_slice(&integer)));
    for (name, ranges) in [("after", &plan.after), ("before", &plan.before)] {
        let steps: Vec<f32> = ranges.iter().map(|r| r.scale).collect();
        let zeros: Vec<i64> = ranges.iter().map(|r| i64::from(r.zero)).collect();
        tensors.push((format!("{name}.scale"), Tensor::from_slice(&steps)));
        tensors.push((format!("{name}.zero"), Tensor::from_slice(&zeros)));
    }
    tensors.push(("scales".into(), Tensor::from_slice(scales)));
    let fail = |reason: String| QuantizeError::File { path: path.to_owned(), reason };
    let beside = path.with_extension("part");
    Tensor::write_safetensors(&tensors, &beside).map_err(|e| fail(e.to_string()))?;
    std::fs::rename(&beside, path).map_err(|e| fail(e.to_string()))
}

/// Reads it back.
///
/// # Errors
/// [`QuantizeError::File`] when it is missing, damaged, or of something else.
pub fn load(path: &Path) -> Result<(Shape, Quantized), QuantizeError> {
    let bad = |reason: String| QuantizeError::File { path: path.to_owned(), reason };
    let tensors =
        Tensor::read_safetensors(path).map_err(|e| bad(format!("{e}: make it with `facelatch quantize`")))?;
    let find = |name: &str| {
        let found = tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        found.ok_or_else(|| bad(format!("it has no '{name}': it is no file of `facelatch quantize`")))
    };
    let floats = |name: &str| -> Result<Vec<f32>, QuantizeError> {
        Vec::try_from(find(name)?.to_kind(Kind::Float)).map_err(|e| bad(format!("{name}: {e}")))
    };
    let integers = |name: &str| -> Result<Vec<i64>, QuantizeError> {
        Vec::try_from(find(name)?.to_kind(Kind::Int64)).map_err(|e| bad(format!("{name}: {e}")))
    };
    let [stem, a, b, c, x, y, z, head] = integers("shape")?[..] else {
        return Err(bad("its shape is not that of a compact net".into()));
    };
    let sane = [stem, a, b, c, head].iter().all(|v| (1..=4096).contains(v))
        && [x, y, z].iter().all(|v| (0..=64).contains(v));
    if !sane {
        return Err(bad("its shape is out of range".into()));
    }
    let shape =
        Shape { stem, stages: [a, b, c], blocks: [x, y, z].map(|v| v as usize), head, input_px: CHIP_PX };
    let store = VarStore::new(Device::Cpu);
    let _net = Compact::new(&store.root(), &shape);
    let mut net = Net::fold(&store, &shape)?;
    let mut weights = Vec::new();
    for layer in &net.layers {
        let pair = (find(&format!("{}.weight", layer.name))?, find(&format!("{}.bias", layer.name))?);
        if pair.0.size() != layer.dense.dims || pair.1.size() != [layer.dense.dims[0]] {
            return Err(bad(format!("{}: its shape is not the net's", layer.name)));
        }
        weights.push((pair.0.shallow_clone(), pair.1.shallow_clone()));
    }
    net.set_tensors(&weights);
    let ranges = |name: &str| -> Result<Vec<Range>, QuantizeError> {
        let (steps, zeros) = (floats(&format!("{name}.scale"))?, integers(&format!("{name}.zero"))?);
        Ok(steps.into_iter().zip(zeros).map(|(scale, zero)| Range { scale, zero: zero as i8 }).collect())
    };
    let plan = Plan {
        integer: integers("integer")?.into_iter().map(|i| i != 0).collect(),
        after: ranges("after")?,
        before: ranges("before")?,
    };
    let scales = floats("scales")?;
    let count = net.layers.len();
    let steps = plan.after.iter().chain(&plan.before).map(|r| r.scale).chain(scales.iter().copied());
    if [plan.integer.len(), plan.after.len(), plan.before.len(), scales.len()] != [count; 4]
        || !steps.into_iter().all(|s| s.is_finite() && s > 0.0)
    {
        return Err(bad("its ranges are not those of the net's layers".into()));
    }
    if (0..count).any(|i| plan.integer[i] && !net.may_be_integer(i)) {
        return Err(bad("it makes a layer integer that cannot be".into()));
    }
    Ok((shape, Quantized { net, plan, scales }))
}

fn shape_tensor(shape: &Shape) -> Tensor {
    let blocks = shape.blocks.map(|b| b as i64);
    let [a, b, c] = shape.stages;
    Tensor::from_slice(&[shape.stem, a, b, c, blocks[0], blocks[1], blocks[2], shape.head])
}

#[cfg(test)]
mod tests {
    use super::super::net::tests::{chips, small};
    use super::super::{Settings, quantize};
    use super::*;

    #[test]
    fn what_is_saved_loads_again_and_another_file_is_refused() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let faces = chips(4);
        let (quantized, _) = quantize(&net, &faces, &faces, &Settings::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(QUANTIZED);
        save(&path, &shape, &quantized).unwrap();
        assert_eq!(load(&path).unwrap(), (shape, quantized));

        let other = dir.path().join("other.safetensors");
        Tensor::write_safetensors(&[("x", Tensor::from_slice(&[1.0_f32]))], &other).unwrap();
        assert!(load(&other).unwrap_err().to_string().contains("no 'shape'"));
        std::fs::write(&other, b"cut").unwrap();
        assert!(load(&other).unwrap_err().to_string().contains("facelatch quantize"));
    }
}
