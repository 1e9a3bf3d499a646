//! FaceNet's nets as a graph: input `chip` `[1, 3, 112, 112]` RGB 0–255, resampled inside to the net's own size, output `embedding`
//! `[1, embedding]`, not normalised.

use tch::nn::VarStore;

use super::onnx::{Form, Geometry, Graph};
use super::weights::Dense;
use super::{CHIP_PX, ExportError, Reader};
use crate::model::facenet::{L2_EPS, Module, Pool, Shape, Step};
use crate::model::resample;

/// The net whose weights are in `store`.
///
/// # Errors
/// [`ExportError::Missing`] when the store is not this net's.
pub fn graph(store: &VarStore, shape: &Shape, form: Form) -> Result<Vec<u8>, ExportError> {
    let reader = Reader(store);
    let mut graph = Graph::new(form);
    let side = shape.input_px as i64;
    let mut x = "chip".to_owned();
    if side != CHIP_PX {
        x = graph.resample(&x, &resample::matrix(CHIP_PX as usize, shape.input_px), CHIP_PX, side);
    }
    x = graph.shift(&x, -127.5);
    // The factor that follows the shift goes into the first convolution.
    let mut factor = 1.0 / 128.0;
    let mut channels = 3;
    for step in shape.plan() {
        x = match step {
            Step::Conv { name, to, kernel, stride } => {
                let layer = reader.conv_bn(name)?.scaled(factor);
                (factor, channels) = (1.0, to);
                let x = graph.conv(&x, &layer, Geometry { stride, padding: kernel / 2, groups: 1 });
                graph.relu(&x)
            }
            Step::MaxPool => graph.max_pool(&x, 2),
            Step::Inception(module) => {
                channels = module.channels(channels);
                inception(&mut graph, &reader, &x, &module)?
            }
        };
    }
    x = graph.mean(&x);
    let (values, bias) = (reader.values("linear")?, reader.values("bias")?);
    x = graph.linear(&x, &Dense { dims: vec![shape.embedding, channels], values, bias });
    Ok(graph.finish(&x, CHIP_PX, shape.embedding))
}

fn inception(
    graph: &mut Graph,
    reader: &Reader<'_>,
    x: &str,
    module: &Module,
) -> Result<String, ExportError> {
    let mut layer = |x: &str, name: &str, kernel: i64, stride| -> Result<String, ExportError> {
        let weights = reader.conv_bn(&format!("{}.{name}", module.name))?;
        let x = graph.conv(x, &weights, Geometry { stride, padding: kernel / 2, groups: 1 });
        Ok(graph.relu(&x))
    };
    let mut parts = Vec::with_capacity(4);
    if module.one > 0 {
        parts.push(layer(x, "one", 1, module.stride)?);
    }
    let reduced = layer(x, "three_reduce", 1, 1)?;
    parts.push(layer(&reduced, "three", 3, module.stride)?);
    if module.five[1] > 0 {
        let reduced = layer(x, "five_reduce", 1, 1)?;
        parts.push(layer(&reduced, "five", 5, module.stride)?);
    }
    let pooled = match module.pool {
        Pool::Max => graph.max_pool(x, module.stride),
        Pool::L2 => graph.l2_pool(x, L2_EPS as f32),
    };
    parts.push(if module.project > 0 {
        let weights = reader.conv_bn(&format!("{}.project", module.name))?;
        let x = graph.conv(&pooled, &weights, Geometry { stride: 1, padding: 0, groups: 1 });
        graph.relu(&x)
    } else {
        pooled
    });
    Ok(graph.concat(&parts))
}

#[cfg(test)]
mod tests {
    use super::super::compare;
    use super::*;
    use crate::model::facenet::{Facenet, Net};
    use crate::model::layers::Mode;
    use tch::{Device, Tensor};

    #[test]
    fn both_nets_run_in_tract_and_agree_with_libtorch() {
        for (net, input_px) in [(Net::Nn2, 64), (Net::Nns2, 112)] {
            tch::manual_seed(4);
            let shape = Shape { net, width: 0.25, input_px, ..Shape::default() };
            let store = VarStore::new(Device::Cpu);
            let net = Facenet::new(&store.root(), &shape);
            // Statistics and scales as after some training, else folding would be tested with ones and zeros.
            tch::no_grad(|| {
                for (name, mut tensor) in std::collections::BTreeMap::from_iter(store.variables()) {
                    if name.contains(".bn.") {
                        tensor.copy_(&(Tensor::rand_like(&tensor) * 0.5 + 0.5));
                    }
                }
            });
            let bytes = graph(&store, &shape, Form::F32).unwrap();
            let exact = compare(&|chip| net.forward(chip, Mode::EVAL), &bytes).unwrap();
            assert!(exact.difference < 1e-4, "{exact:?}");
        }
    }
}
