//! PRelu in one pass.
//!
//! tract writes ONNX PRelu as a product, a comparison and a selection: three passes over the activations with two
//! intermediate tensors. Networks such as SFace have one after every convolution. Here a constant slope a channel
//! becomes one operator that works in place: x for x ≥ 0, a·x below (He et al. 2015, "Delving deep into rectifiers", eq. 1).
//! A slope common to all channels becomes tract's LeakyRelu, which its matrix products absorb.

use tract_onnx::Onnx;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops;

/// Replaces the importer's PRelu.
pub fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("PRelu", |_, _| Ok((expand(OnnxPrelu), vec![])));
}

/// The ONNX operator: inputs `x` and `slope`, slope broadcastable to `x` from the last axis.
#[derive(Clone, Debug)]
struct OnnxPrelu;

impl Expansion for OnnxPrelu {
    fn name(&self) -> StaticName {
        "FacelatchPrelu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?.clone();
        let slope = model.outlet_fact(inputs[1])?.konst.clone();
        if let Some(slope) =
            slope.filter(|s| s.datum_type() == f32::datum_type() && fact.datum_type == f32::datum_type())
        {
            let values = slope.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            let wide: TVec<usize> = (0..slope.rank()).filter(|&axis| slope.shape()[axis] != 1).collect();
            if let [alpha] = values[..] {
                let op = ops::element_wise::ElementWiseOp(Box::new(ops::nn::LeakyRelu { alpha }), None);
                return model.wire_node(prefix, op, &inputs[..1]);
            }
            if let ([axis], true) = (&wide[..], slope.rank() <= fact.rank()) {
                let axis = axis + fact.rank() - slope.rank();
                ensure!(
                    fact.shape[axis] == values.len().to_dim(),
                    "PRelu has {} slopes for an axis of {}",
                    values.len(),
                    fact.shape[axis]
                );
                return model.wire_node(
                    prefix,
                    ChannelPrelu { axis, slopes: tensor1(&values) },
                    &inputs[..1],
                );
            }
        }
        self.wire_in_general(prefix, model, inputs)
    }
}

impl OnnxPrelu {
    /// max(x, 0) + slope · min(x, 0), for slopes that are computed or vary along several axes.
    fn wire_in_general(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let (rank, datum_type) = {
            let fact = model.outlet_fact(inputs[0])?;
            (fact.rank(), fact.datum_type)
        };
        let mut slope = inputs[1];
        for missing in model.outlet_fact(slope)?.rank()..rank {
            slope = model.wire_node(format!("{prefix}.slope-axis-{missing}"), AxisOp::Add(0), &[slope])?[0];
        }
        let zero = tensor0(0.0_f32).cast_to_dt(datum_type)?.into_owned().broadcast_into_rank(rank)?;
        let zero = model.add_const(format!("{prefix}.zero"), zero)?;
        let above = model.wire_node(format!("{prefix}.above"), ops::math::max(), &[inputs[0], zero])?[0];
        let below = model.wire_node(format!("{prefix}.below"), ops::math::min(), &[inputs[0], zero])?[0];
        let below = model.wire_node(format!("{prefix}.scaled"), ops::math::mul(), &[slope, below])?[0];
        model.wire_node(prefix, ops::math::add(), &[above, below])
    }
}

/// One constant slope for each index of `axis`; float32, in place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ChannelPrelu {
    axis: usize,
    slopes: Tensor,
}

impl Op for ChannelPrelu {
    fn name(&self) -> StaticName {
        "ChannelPrelu".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("axis {}, {} slopes", self.axis, self.slopes.len())])
    }

    op_as_typed_op!();
}

impl EvalOp for ChannelPrelu {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut tensor = args_1!(inputs).into_tensor();
        ensure!(
            tensor.rank() > self.axis,
            "PRelu over axis {} of a tensor of rank {}",
            self.axis,
            tensor.rank()
        );
        ensure!(tensor.shape()[self.axis] == self.slopes.len(), "PRelu has the wrong number of slopes");
        let plane = tensor.shape()[self.axis + 1..].iter().product::<usize>();
        let slopes = self.slopes.try_as_plain_ram()?.as_slice::<f32>()?;
        let mut view = tensor.try_as_plain_ram_mut()?;
        apply(view.as_slice_mut::<f32>()?, plane, slopes);
        Ok(tvec!(tensor.into_tvalue()))
    }
}

impl TypedOp for ChannelPrelu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    fn change_axes(
        &self,
        model: &TypedModel,
        node: &TypedNode,
        _io: InOut,
        change: &AxisOp,
    ) -> TractResult<Option<AxisChangeConsequence>> {
        Ok(change.transform_axis(self.axis).map(|axis| {
            let moved: Box<dyn TypedOp> = Box::new(Self { axis, slopes: self.slopes.clone() });
            AxisChangeConsequence::new(model, node, Some(moved), change)
        }))
    }

    as_op!();
}

/// `values` is `[outer, slopes.len(), plane]`.
fn apply(values: &mut [f32], plane: usize, slopes: &[f32]) {
    if plane == 0 {
        return;
    }
    if plane == 1 {
        for row in values.chunks_exact_mut(slopes.len()) {
            row.iter_mut().zip(slopes).for_each(|(v, slope)| scale_below_zero(v, *slope));
        }
        return;
    }
    for (channel, slope) in values.chunks_exact_mut(plane).zip(slopes.iter().cycle()) {
        channel.iter_mut().for_each(|v| scale_below_zero(v, *slope));
    }
}

/// Always multiplies and always stores: a store for negative values alone would keep the compiler from vectorizing.
#[inline]
fn scale_below_zero(v: &mut f32, slope: f32) {
    *v *= if *v < 0.0 { slope } else { 1.0 };
}

#[cfg(test)]
mod tests {
    use super::super::runtime::values;
    use super::super::testing;
    use super::*;

    /// x · slope below zero, element by element.
    fn reference(values: &[f32], plane: usize, slopes: &[f32]) -> Vec<f32> {
        let slope = |i: usize| slopes[i / plane % slopes.len()];
        values.iter().enumerate().map(|(i, &v)| if v < 0.0 { v * slope(i) } else { v }).collect()
    }

    fn ramp(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn planes_and_single_values_agree_with_the_definition() {
        let slopes = [0.25, -0.5, 1.75];
        for plane in [1, 2, 7, 64] {
            let mut values = ramp(2 * slopes.len() * plane);
            let expected = reference(&values, plane, &slopes);
            apply(&mut values, plane, &slopes);
            assert_eq!(values, expected, "plane {plane}");
        }
    }

    #[test]
    fn a_graph_uses_the_fused_operator_and_keeps_its_meaning() {
        // Slopes above one and below zero: max(x, a·x) would be wrong for both.
        for (shape, slopes) in [
            (vec![3, 1, 1], vec![0.25, 1.75, -0.5]),
            (vec![1, 3, 1, 1], vec![0.25, 1.75, -0.5]),
            (vec![1], vec![1.5]),
        ] {
            let bytes = testing::prelu_graph(&shape, &slopes);
            let mut network = testing::load(&bytes, (4, 2)).unwrap();
            let per_channel = slopes.len() == 3;
            assert_eq!(network.operators().any(|op| op == "ChannelPrelu"), per_channel);
            assert!(!network.operators().any(|op| op.contains("Iff")));
            let given = ramp(24);
            network.input_mut().unwrap().copy_from_slice(&given);
            let out = network.run().unwrap();
            assert_eq!(values(&out[0]), reference(&given, 8, &slopes));
        }
    }

    #[test]
    fn slopes_along_two_axes_take_the_general_form() {
        let slopes: Vec<f32> = (0..6).map(|i| i as f32 * 0.5 - 1.0).collect();
        let bytes = testing::prelu_graph(&[3, 2, 1], &slopes);
        let mut network = testing::load(&bytes, (4, 2)).unwrap();
        let given = ramp(24);
        network.input_mut().unwrap().copy_from_slice(&given);
        let out = network.run().unwrap();
        assert_eq!(values(&out[0]), reference(&given, 4, &slopes));
    }

    #[test]
    fn the_wrong_number_of_slopes_is_an_error() {
        let said =
            testing::load(&testing::prelu_graph(&[5, 1, 1], &[0.1; 5]), (4, 2)).unwrap_err().to_string();
        assert!(said.contains("cannot be used"), "{said}");
    }
}
